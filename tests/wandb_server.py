"""A W&B server on 127.0.0.1 that knows just enough to take a run, and can go away."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer

    def do_HEAD(self):
        self._reply(self.server.status, {})

    do_GET = do_HEAD

    def do_PUT(self):
        self._body()
        self._reply(200, {})

    def do_POST(self):
        body = self._body()
        if self.server.status != 200:
            return self._reply(self.server.status, {"errors": [{"message": "not allowed"}]})
        if not self.path.endswith("/graphql"):
            return self._reply(200, {})
        request = json.loads(body)
        self.server.requests.append((request["operationName"], request["variables"]))
        return self._reply(200, {"data": self._answer(*self.server.requests[-1])})

    def _answer(self, operation, variables):
        project = {"id": "UA==", "name": variables.get("project"), "entity": {"id": "RQ==", "name": "team"}}
        if operation == "UpsertBucket":
            names = {"name": variables["name"], "displayName": variables["displayName"], "config": variables["config"]}
            bucket = {"id": "UnVu", "description": None, "sweepName": None, "historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket | names, "inserted": True}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "RunResumeStatus":
            return {"model": {"id": "UA==", "name": project["name"], "entity": project["entity"], "bucket": None}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.server.url}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "UnVu", "uploadHeaders": [], "files": files}}
        return {}

    def _body(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


class WandbServer(ThreadingHTTPServer):
    """Answers with `status`; `requests` keeps (operation, variables) of every GraphQL request."""

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that went away is none of our business."""

    def go_away(self):
        self.shutdown()
        self.server_close()
