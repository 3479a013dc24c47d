"""TLS under the suite's connections: certificates by the `openssl` command, handshakes and records by the standard library's
`ssl` over memory. So each byte on the socket is the suite's: it tells a cut connection from one that ended with
`close_notify`, ends one side alone, and lets tests change records.

`LINES` holds the ports that are spoken to by TLS; `open_connection` is asyncio's, for those and for plain ports."""
import _ssl
import asyncio
import ctypes
import os
import pathlib
import socket
import ssl
import subprocess
import tempfile

NAME = "share.example"  # in the default certificate
PROTOCOL = "http/1.1"
AES, CHACHA20 = "AES128-GCM-SHA256", "CHACHA20-POLY1305"
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
SUITES = [(V13, AES), (V13, CHACHA20), (V12, AES), (V12, CHACHA20)]
CIPHERS_13 = {AES: "TLS_AES_128_GCM_SHA256", CHACHA20: "TLS_CHACHA20_POLY1305_SHA256"}
ENVIRONMENT = "CONFORMANCE_TLS"  # for the suite's own processes: port, number of the suite, CA's file

LINES = {}  # port: Line
BUFFER = memoryview(bytearray(1 << 16))  # of all connections: nothing stays in it


class Truncated(ConnectionError):
    """The connection ended without `close_notify`."""


class Authority:
    """A private CA in a temporary directory; with a `file`, the certificate of one that another process has."""

    def __init__(self, file=None):
        self.file, self.contexts = file, {}
        if file is None:
            self.make()

    def make(self):
        self.folder = tempfile.TemporaryDirectory(prefix="slca")
        self.path = pathlib.Path(self.folder.name)
        self.file, self.count = str(self.path / "ca.pem"), 0
        self.openssl("req", "-x509", *self.key("ca.key"), "-out", self.file, "-subj", "/CN=conformance", "-days", "365",
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.default = self.issue([NAME, "localhost", "127.0.0.1"])

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.path, capture_output=True, text=True)
        assert done.returncode == 0, f"openssl {arguments}: {done.stderr}"

    @staticmethod
    def key(file, kind="ec"):
        kinds = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}
        return ["-newkey", *kinds[kind], "-nodes", "-keyout", file]

    def issue(self, names, kind="ec", days=30):
        """A certificate for these names and addresses, and its key: the entry of `tls.certificates`."""
        self.count += 1
        certificate, key = (str(self.path / f"{self.count}.{end}") for end in ("pem", "key"))
        alternatives = ",".join(("IP:" if name[0].isdigit() else "DNS:") + name for name in names)
        self.openssl("req", "-x509", *self.key(key, kind), "-out", certificate, "-subj", f"/CN={self.count}", "-days", str(days),
                     "-CA", self.file, "-CAkey", "ca.key", "-addext", f"subjectAltName={alternatives}",
                     "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth")
        return {"certificate_file": certificate, "key_file": key}

    def context(self, suite=SUITES[0]):
        if suite not in self.contexts:
            self.contexts[suite] = client(self.file, suite)
        return self.contexts[suite]

    def section(self, port, **changes):
        """A section [tls]."""
        return {"listen": f"127.0.0.1:{port}", "certificates": [self.default], **changes}


def client(ca_file, suite=None, protocols=(PROTOCOL,)):
    """A context that verifies the relay, and offers one version with one suite, or else all."""
    context = ssl.create_default_context(cafile=ca_file)
    context.file, context.suite = ca_file, suite
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if suite:
        version, cipher = suite
        context.minimum_version = context.maximum_version = version
        if version == V12:
            context.set_ciphers(f"ECDHE-ECDSA-{cipher}:ECDHE-RSA-{cipher}")
        else:
            set_ciphersuites(context, CIPHERS_13[cipher])
    return context


def set_ciphersuites(context, names):
    """The suites of TLS 1.3, which Python's module can't choose before 3.15. Until then its object holds OpenSSL's context
    right behind the object's own head."""
    if hasattr(context, "set_ciphersuites"):
        return context.set_ciphersuites(names)
    under = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    assert ctypes.CDLL(_ssl.__file__).SSL_CTX_set_ciphersuites(under, names.encode()) == 1


class Line:
    """How a port is spoken to by TLS. `faults`: what no connection to it may do."""

    def __init__(self, authority, suite, name=NAME):
        self.context, self.name, self.faults = authority.context(suite), name, []
        self.settings = f"{SUITES.index(suite)} {authority.file}"

    async def open(self, host="127.0.0.1", port=None, *, limit=2**16, sock=None, local_addr=None, session=None, name=None, context=None, kind=None,
                   receive_buffer=None):
        """As asyncio.open_connection. `kind`: of connection."""
        loop = asyncio.get_running_loop()
        if receive_buffer:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setblocking(False)
            sock.bind(local_addr or ("", 0))
            await loop.sock_connect(sock, (host, port))
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        where = {"sock": sock} if sock else {"host": host, "port": port, "local_addr": local_addr}

        def make():
            return (kind or Connection)(protocol, context or self.context, name or self.name, session, self.faults, limit)

        _, connection = await loop.create_connection(make, **where)
        try:
            await connection.shaken
        except BaseException:
            connection.abort()
            raise
        return reader, asyncio.StreamWriter(connection, protocol, reader, loop)


class Connection(asyncio.Transport, asyncio.BufferedProtocol):
    """The transport of a stream, which is a protocol over a plain transport. It takes no more from the kernel at once than the
    stream's limit."""

    def __init__(self, above, context, name, session, faults, limit):
        super().__init__()
        self.room = BUFFER[:limit]
        self.above, self.under, self.faults, self.error = above, None, faults, None
        self.arrived, self.made = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.arrived, self.made, server_hostname=name, session=session)
        self.shaken = asyncio.get_running_loop().create_future()
        self.has_ended, self.is_closed = False, False  # the peer's side, ours

    # --- the protocol ---

    def connection_made(self, under):
        self.under = under
        self.shake()

    def get_buffer(self, _):
        return self.room

    def buffer_updated(self, size):
        self.data_received(bytes(self.room[:size]))

    def data_received(self, data):
        if self.error:
            return
        if self.has_ended:
            return self.fail(ssl.SSLError("bytes behind close_notify"))
        self.arrived.write(data)
        if self.shaken.done() or self.shake():
            self.read()

    def eof_received(self):
        if self.has_ended:
            return self.above.eof_received()
        if self.error is None and self.shaken.done():
            self.fail(Truncated("the connection ended without close_notify"))
        return False

    def connection_lost(self, error):
        error = self.error or error
        if self.shaken.done() and not self.shaken.cancelled() and self.shaken.exception() is None:
            return self.above.connection_lost(error)
        if not self.shaken.done():
            self.shaken.set_exception(error or ConnectionResetError("the connection ended during the handshake"))

    def pause_writing(self):
        self.above.pause_writing()

    def resume_writing(self):
        self.above.resume_writing()

    def shake(self):
        """Whether hands are shaken."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            return False
        except ssl.SSLError as error:
            self.flush()
            self.error = error
            self.under.close()
            return False
        self.flush()
        self.above.connection_made(self)
        self.shaken.set_result(None)
        return True

    def read(self):
        try:
            while data := self.object.read(1 << 16):
                self.above.data_received(data)
            self.has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True
        except ssl.SSLError as error:
            self.flush()
            self.fail(error)
        self.flush()
        if self.has_ended and self.arrived.pending:
            self.fail(ssl.SSLError("bytes behind close_notify"))

    def flush(self):
        if self.made.pending and not self.under.is_closing():
            self.under.write(self.made.read())

    def fail(self, error):
        self.faults.append(str(error))
        self.error = error
        self.under.abort()

    # --- the transport ---

    def write(self, data):
        if self.is_closed or self.under.is_closing():
            return
        if data:
            self.object.write(data)
            self.flush()

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.notify()
        self.under.write_eof()

    def notify(self):
        if not self.is_closed:
            self.is_closed = True
            try:
                self.object.unwrap()
            except ssl.SSLError:  # it waits for the peer's
                pass
            self.flush()

    def close(self):
        if not self.under.is_closing():
            self.notify()
            self.under.close()

    def abort(self):
        if self.under:
            self.under.abort()

    def is_closing(self):
        return self.under.is_closing()

    def pause_reading(self):
        self.under.pause_reading()

    def resume_reading(self):
        self.under.resume_reading()

    def is_reading(self):
        return self.under.is_reading()

    def get_write_buffer_size(self):
        return self.under.get_write_buffer_size()

    def get_protocol(self):
        return self.above

    def set_protocol(self, protocol):
        self.above = protocol

    def get_extra_info(self, name, default=None):
        return default if name == "sslcontext" else self.under.get_extra_info(name, default)


async def open_connection(host="127.0.0.1", port=None, *, limit=2**16, sock=None, local_addr=None):
    line = LINES.get(sock.getpeername()[1] if sock else port)
    if line:
        return await line.open(host, port, limit=limit, sock=sock, local_addr=local_addr)
    where = {"sock": sock} if sock else {"host": host, "port": port, "local_addr": local_addr}
    return await asyncio.open_connection(limit=limit, **where)


def environment(port):
    """The environment in which the suite's own processes speak to this port as the suite does."""
    return {**os.environ, **({ENVIRONMENT: f"{port} {LINES[port].settings}"} if port in LINES else {})}


if ENVIRONMENT in os.environ:
    _port, _suite, _file = os.environ[ENVIRONMENT].split(" ", 2)
    LINES[int(_port)] = Line(Authority(_file), SUITES[int(_suite)])
