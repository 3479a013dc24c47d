"""Certificates for the uplink's TLS, made by `openssl` once for each run: a CA with a server's and a relay's certificate,
another CA, and what is wrong in one way each."""
import os
import pathlib
import ssl
import subprocess
import tempfile

_made = None


FAKETIME = next(iter(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def fake_clock(at):
    """The environment in which libfaketime makes of a program's clock what `at` says. The program `faketime` fails where a
    killed process with its own number has left a semaphore; the library does not mind."""
    assert FAKETIME, "libfaketime is missing: install the package faketime"
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": at, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def openssl(line, folder, at=None):
    """`at`: what the clock says to openssl."""
    command = ["openssl", *line.split()]
    environment = {**os.environ, **(fake_clock(f"@{at} 00:00:00") if at else {})}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Certificates:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="slpki")
        self.path = pathlib.Path(self.folder.name)
        for ca in ("ca", "other"):
            self.key(ca)
            openssl(f"req -x509 -new -key {ca}.key -subj /CN={ca} -days 36500 -out {ca}.pem", self.path, at="2020-01-01")
        self.issue("business", "ca", "subjectAltName=DNS:business.example")
        self.issue("stranger", "other", "subjectAltName=DNS:business.example")
        self.issue("elsewhere", "ca", "subjectAltName=DNS:elsewhere.example")
        self.issue("old", "ca", "subjectAltName=DNS:business.example", at="2020-02-01")
        self.issue("new", "ca", "subjectAltName=DNS:business.example", at="2090-01-01")
        self.issue("box", "ca", "extendedKeyUsage=clientAuth")
        self.key("alone")
        openssl("req -x509 -new -key alone.key -subj /CN=alone -days 1 -out alone.pem", self.path)

    def key(self, name):
        openssl(f"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key", self.path)

    def issue(self, name, ca, extension, at=None):
        self.key(name)
        (self.path / "extensions").write_text(f"basicConstraints=CA:FALSE\n{extension}\n")
        openssl(f"req -new -key {name}.key -subj /CN={name} -out {name}.csr", self.path)
        openssl(f"x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -days 30 -extfile extensions -out {name}.pem", self.path, at)

    def __getitem__(self, file):
        return str(self.path / file)

    def pin(self, name, form=""):
        """SHA-256 of the public key, as openssl prints it, in this form."""
        pipe = f"openssl x509 -in {name}.pem -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 {form}"
        return subprocess.run(pipe, shell=True, cwd=self.path, capture_output=True, text=True, check=True).stdout.split("= ")[1].strip()

    def server(self, name, clients=None):
        """A context for a business server with this certificate, which demands a certificate from the CA `clients`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self[f"{name}.pem"], self[f"{name}.key"])
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self[f"{clients}.pem"])
        return context


def certificates():
    global _made
    if _made is None:
        _made = Certificates()
    return _made


def everywhere():
    """Whether this run has TLS on every uplink that a test doesn't configure itself."""
    return os.environ.get("CONFORMANCE_UPLINK") == "tls"
