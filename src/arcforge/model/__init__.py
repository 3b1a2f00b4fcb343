"""The GLM-5 backbone: MLA, DeepSeek sparse attention, MoE, shared-parameter MTP, saved and loaded as `glm_moe_dsa`."""
