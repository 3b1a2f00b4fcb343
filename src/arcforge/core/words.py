"""Word pools of the generated worlds. Each word becomes one token of the laptop recipe's tokenizer."""

from __future__ import annotations

NAMES: tuple[str, ...] = tuple(
    """
    ant ape bat bee cat cow crab crow deer dog dove duck eel elk fox frog goat hare hawk hen horse kiwi lamb
    lion lynx mole moth mouse mule newt otter owl ox panda pig pony pug rat raven robin seal shark sheep skunk
    slug snail swan tiger toad trout tuna viper wasp whale wolf wren yak zebra acorn apple bean berry bread cake
    candy cherry clove corn date fig grape honey kale leek lemon lime mango melon mint nut oat olive onion peach
    pear pepper plum rice sage salad salt soup sugar toast wheat amber ash beach birch bloom brick brook canoe
    cedar cliff cloud coral creek dawn dune dust ember fern field flame forest frost garden glade gold grove
    hail harbor hill ivory jade lake lava leaf maple marsh meadow mist moon moss oak ocean pearl pine pond
    prairie rain reef ridge river rock rose ruby sand shell silver sky snow spring spruce star stone storm
    summit sun swamp tide tulip valley vine wave willow wind winter
    """.split()
)

FILLERS: tuple[str, ...] = tuple(
    """
    the a an is are was in on at of to and or not with for from by as it this that we you they he she one two
    three four five six seven eight nine ten red blue green small big old new good bad happy sad day night home
    work time word list
    """.split()
)
