"""An S3 store on loopback, for one test.

Prints one line of JSON with its port and the keys of its only user, and ends when its standard input
does. Requests are served one after the other, which makes conditional writes atomic, as they are in S3.
"""

import json
import logging
import sys
import threading

import boto3
from moto import settings
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

BUCKET = sys.argv[1]
STATEMENT = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
POLICY = {"Version": "2012-10-17", "Statement": [STATEMENT]}


class OneByOne:
    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            return list(self.app(environ, start_response))


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = OneByOne(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    def client(service):
        return boto3.client(
            service,
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="unused",
            aws_secret_access_key="unused",
        )

    iam = client("iam")
    iam.create_user(UserName="archiver")
    iam.put_user_policy(
        UserName="archiver", PolicyName="archive", PolicyDocument=json.dumps(POLICY)
    )
    key = iam.create_access_key(UserName="archiver")["AccessKey"]
    client("s3").create_bucket(Bucket=BUCKET)
    # From here on a request must be signed by that user.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    keys = {"access": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    print(json.dumps({"port": server.server_port, **keys}), flush=True)
    sys.stdin.read()


main()
