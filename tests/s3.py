"""An S3-compatible server on this machine that counts what it is sent, and fails where a test says so."""

from collections import Counter

from moto.server import ThreadedMotoServer

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "wholly-secret",
    "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


class Server:
    """Answers in this process; `before` is called with each request's method and path, and may answer in its place."""

    def __init__(self):
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._moto.start()
        self._answer, self._moto._server.app = self._moto._server.app, self._count
        host, port = self._moto.get_host_and_port()
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        self.reset()

    def reset(self):
        self.requests, self.sent = Counter(), Counter()
        self.before = lambda method, path: None

    def fetched(self):
        """The files that were read so far, by name, and their bytes."""
        return {path.rpartition("/")[2]: n for path, n in self.sent.items() if n}

    def stop(self):
        self._moto.stop()

    def _count(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests[method] += 1
        spoiled = self.before(method, path)
        if spoiled is not None:
            status, code, message = spoiled
            body = ERROR.format(code=code, message=message).encode()
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        body = list(self._answer(environ, start_response))
        if method == "GET" and not environ.get("QUERY_STRING"):
            self.sent[path] += sum(map(len, body))
        return body
