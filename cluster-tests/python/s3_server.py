"""An S3 store on loopback, for one test.

    s3_server.py BUCKET [DIR]

Prints one line of JSON with its port and the keys of its only user, and ends when its standard input
does. Requests are served one after the other, which makes conditional writes atomic, as they are in S3.

With a directory it serves TLS, with a certificate for 127.0.0.1 alone. The directory then holds the
certificate of the authority that has signed it, ca.crt, and of another one, other.crt.
"""

import datetime
import ipaddress
import json
import logging
import pathlib
import ssl
import sys
import threading

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto import settings
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

BUCKET = sys.argv[1]
DIR = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
STATEMENT = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
POLICY = {"Version": "2012-10-17", "Statement": [STATEMENT]}


class OneByOne:
    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            return list(self.app(environ, start_response))


def certificate(name, extension, signed_by=None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, issuer_key = (signed_by[0].subject, signed_by[1]) if signed_by else (subject, key)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(extension, critical=signed_by is None)
    return builder.sign(issuer_key, hashes.SHA256()), key


def tls():
    """Writes the files, and returns what serves with them; None where none are asked for."""
    if DIR is None:
        return None
    pem = serialization.Encoding.PEM
    ca = certificate("store authority", x509.BasicConstraints(ca=True, path_length=None))
    other = certificate("another authority", x509.BasicConstraints(ca=True, path_length=None))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    own, key = certificate("store", x509.SubjectAlternativeName([address]), ca)
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (DIR / "ca.crt").write_bytes(ca[0].public_bytes(pem))
    (DIR / "other.crt").write_bytes(other[0].public_bytes(pem))
    (DIR / "store.crt").write_bytes(own.public_bytes(pem))
    (DIR / "store.key").write_bytes(key.private_bytes(pem, *plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DIR / "store.crt", DIR / "store.key")
    return context


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = OneByOne(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1",
        0,
        app,
        threaded=True,
        request_handler=MotoRequestHandler,
        ssl_context=tls(),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scheme = "http" if DIR is None else "https"
    url = f"{scheme}://127.0.0.1:{server.server_port}"

    def client(service):
        return boto3.client(
            service,
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="unused",
            aws_secret_access_key="unused",
            verify=None if DIR is None else str(DIR / "ca.crt"),
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
