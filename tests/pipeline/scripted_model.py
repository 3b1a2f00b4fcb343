"""An OpenAI-style endpoint on loopback whose answers a test says."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


@contextmanager
def scripted_model(answer):
    """answer: the message for a request, given all requests so far. Yields (URL, the requests)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._say({"data": [{"id": "scripted"}]})

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            message = {"role": "assistant", "content": "", **answer(asked)}
            reason = "tool_calls" if "tool_calls" in message else "stop"
            self._say({"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": USAGE})

        def _say(self, value):
            raw = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
