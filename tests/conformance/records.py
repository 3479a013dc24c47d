"""TLS records of the suite's own: after a handshake by `ssl`, whose secrets come from its key log, a connection seals and
opens each record itself, so that a test can make every record that a client may or may not send (RFC 8446, RFC 5246).
The AEADs are those of OpenSSL's libcrypto."""
import _ssl
import ctypes
import hashlib
import hmac
import os
import ssl
import struct
import tempfile

import tls

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
NEW_SESSION_TICKET, KEY_UPDATE = 4, 24
CLOSE_NOTIFY, UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW, USER_CANCELED, NO_RENEGOTIATION = 0, 10, 20, 22, 90, 100
PLAIN_SIZE_MAX = 1 << 14
TAG_SIZE = 16

_crypto = ctypes.CDLL(_ssl.__file__)  # and the libraries that it needs
_pointer = ctypes.c_void_p
for _name in ("EVP_aes_128_gcm", "EVP_chacha20_poly1305", "EVP_CIPHER_CTX_new"):
    getattr(_crypto, _name).restype = _pointer
_GET_TAG, _SET_TAG = 0x10, 0x11


def aead(cipher, key, nonce, additional, data, seals):
    """The sealed bytes with their tag, or the opened ones, or None."""
    kind = _crypto.EVP_aes_128_gcm() if cipher == tls.AES else _crypto.EVP_chacha20_poly1305()
    context = _pointer(_crypto.EVP_CIPHER_CTX_new())
    size, out, tag = ctypes.c_int(), ctypes.create_string_buffer(len(data) + TAG_SIZE), b""
    if not seals:
        data, tag = data[:-TAG_SIZE], data[-TAG_SIZE:]
    try:
        assert _crypto.EVP_CipherInit_ex(context, _pointer(kind), None, key, nonce, int(seals)) == 1
        assert _crypto.EVP_CipherUpdate(context, None, ctypes.byref(size), additional, len(additional)) == 1
        assert _crypto.EVP_CipherUpdate(context, out, ctypes.byref(size), data, len(data)) == 1
        if not seals:
            assert _crypto.EVP_CIPHER_CTX_ctrl(context, _SET_TAG, TAG_SIZE, tag) == 1
        rest = ctypes.create_string_buffer(TAG_SIZE)
        if _crypto.EVP_CipherFinal_ex(context, rest, ctypes.byref(size)) != 1:
            return None
        if seals:
            made = ctypes.create_string_buffer(TAG_SIZE)
            assert _crypto.EVP_CIPHER_CTX_ctrl(context, _GET_TAG, TAG_SIZE, made) == 1
            tag = made.raw
        return out.raw[:len(data)] + (tag if seals else b"")
    finally:
        _crypto.EVP_CIPHER_CTX_free(context)


def expand(secret, label, size):
    """HKDF-Expand-Label (RFC 8446, 7.1) without a context, for at most one block."""
    label = b"tls13 " + label
    info = struct.pack(">HB", size, len(label)) + label + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha256).digest()[:size]


def prf(secret, label, seed, size):
    """RFC 5246, 5."""
    seed, out, a = label + seed, b"", label + seed
    while len(out) < size:
        a = hmac.new(secret, a, hashlib.sha256).digest()
        out += hmac.new(secret, a + seed, hashlib.sha256).digest()
    return out[:size]


class Keys:
    """One direction."""

    def __init__(self, version, cipher, secret=None, key=None, iv=None, sequence=0):
        self.version, self.cipher, self.secret = version, cipher, secret
        self.key_size = 16 if cipher == tls.AES else 32
        self.key, self.iv, self.sequence = key, iv, sequence
        if secret:
            self.renew(secret)

    def renew(self, secret):
        self.secret, self.sequence = secret, 0
        self.key, self.iv = expand(secret, b"key", self.key_size), expand(secret, b"iv", 12)

    def update(self):
        """RFC 8446, 7.2."""
        self.renew(expand(self.secret, b"traffic upd", 32))

    def nonce(self):
        """The nonce, and the part of it that a record carries."""
        if self.version == tls.V12 and self.cipher == tls.AES:
            explicit = struct.pack(">Q", self.sequence)
            return self.iv + explicit, explicit
        return bytes(a ^ b for a, b in zip(self.iv, struct.pack(">4xQ", self.sequence))), b""

    def seal(self, content, plain, padding=0):
        nonce, explicit = self.nonce()
        if self.version == tls.V13:
            plain, content = plain + bytes([content]) + bytes(padding), DATA
            head = struct.pack(">BHH", content, 0x303, len(plain) + TAG_SIZE)
            additional = head
        else:
            head = struct.pack(">BHH", content, 0x303, len(explicit) + len(plain) + TAG_SIZE)
            additional = struct.pack(">QBHH", self.sequence, content, 0x303, len(plain))
        self.sequence += 1
        return head + explicit + aead(self.cipher, self.key, nonce, additional, plain, True)

    def open(self, record):
        """(content, plaintext)"""
        nonce, explicit = self.nonce()
        content, body = record[0], record[5 + len(explicit):]
        if self.version == tls.V12 and explicit:
            nonce = self.iv + record[5:13]
        additional = record[:5] if self.version == tls.V13 else struct.pack(">QBHH", self.sequence, content, 0x303, len(body) - TAG_SIZE)
        plain = aead(self.cipher, self.key, nonce, additional, body, False)
        assert plain is not None, "a record that can't be opened"
        self.sequence += 1
        if self.version == tls.V13:
            plain = plain.rstrip(b"\0")
            plain, content = plain[:-1], plain[-1]
        return content, plain


class Connection(tls.Connection):
    """A stream's transport with its own records. `sizes`: of the records of data that came; `updates`: key updates that
    came; `tickets`: likewise; `alert`: the relay's (level, description)."""

    def __init__(self, above, context, name, session, faults, limit):
        handle, self.log = tempfile.mkstemp()
        os.close(handle)
        self.suite = context.suite
        own = tls.client(context.file, self.suite)
        own.keylog_filename = self.log
        super().__init__(above, own, name, session, faults, limit)
        self.is_own, self.buffer, self.flight = False, b"", b""
        self.sizes, self.updates, self.tickets, self.alert, self.answers_updates = [], 0, 0, None, True

    # --- the handshake ---

    def shake(self):
        if not super().shake():
            return False
        self.begin()
        return True

    def begin(self):
        version, cipher = self.suite
        with open(self.log) as log:
            secrets = {parts[0]: [bytes.fromhex(part) for part in parts[1:]] for line in log if (parts := line.split()) and parts[0] != "#"}
        os.unlink(self.log)
        if version == tls.V13:
            self.out = Keys(version, cipher, secrets["CLIENT_TRAFFIC_SECRET_0"][1])
            self.into = Keys(version, cipher, secrets["SERVER_TRAFFIC_SECRET_0"][1])
        else:
            client_random, master = secrets["CLIENT_RANDOM"]
            server_random = self.flight[11:43]  # behind the head of the record, type, length and version
            key_size, iv_size = (16, 4) if cipher == tls.AES else (32, 12)
            block = prf(master, b"key expansion", server_random + client_random, 2 * (key_size + iv_size))
            keys = [block[:key_size], block[key_size:2 * key_size]]
            ivs = [block[2 * key_size:2 * key_size + iv_size], block[2 * key_size + iv_size:]]
            self.out, self.into = (Keys(version, cipher, None, key, iv, 1) for key, iv in zip(keys, ivs))
        self.is_own, self.buffer = True, self.arrived.read()

    # --- reading ---

    def data_received(self, data):
        if not self.is_own:
            self.flight += data
            return super().data_received(data)
        if self.error:
            return
        if self.has_ended:
            return self.fail(ssl.SSLError("bytes behind close_notify"))
        self.buffer += data
        self.read()

    def read(self):
        try:
            while len(self.buffer) >= 5 and len(self.buffer) >= (size := 5 + struct.unpack(">H", self.buffer[3:5])[0]):
                record, self.buffer = self.buffer[:size], self.buffer[size:]
                assert not self.has_ended, "a record behind close_notify"
                self.take(*self.into.open(record))
        except AssertionError as error:
            self.fail(error)

    def take(self, content, plain):
        if content == DATA:
            assert plain, "an empty record"
            self.sizes.append(len(plain))
            self.above.data_received(plain)
        elif content == ALERT:
            self.alert = tuple(plain)
            self.has_ended = True
        elif content == HANDSHAKE and plain[0] == NEW_SESSION_TICKET:
            while plain:  # a record may have several
                assert plain[0] == NEW_SESSION_TICKET, plain
                self.tickets, plain = self.tickets + 1, plain[4 + int.from_bytes(plain[1:4], "big"):]
        elif content == HANDSHAKE and plain[0] == KEY_UPDATE:
            assert plain in (update(False), update(True)), plain
            self.updates += 1
            self.into.update()
        else:
            raise AssertionError(f"a record of content {content} with {plain[:16].hex()}")

    # --- writing ---

    def record(self, content, plain, padding=0):
        """The next record, which must be sent in its turn."""
        return self.out.seal(content, plain, padding)

    def raw(self, data):
        self.under.write(data)

    def write(self, data):
        if self.is_closed or self.under.is_closing():
            return
        for at in range(0, len(data), PLAIN_SIZE_MAX):
            self.raw(self.record(DATA, data[at:at + PLAIN_SIZE_MAX]))

    def update(self, is_asked=False):
        """The record of a key update; the next one is sealed under the next key."""
        record = self.record(HANDSHAKE, update(is_asked))
        self.out.update()
        return record

    def notify(self):
        if self.is_own and not self.is_closed:
            self.raw(self.record(ALERT, bytes([1, CLOSE_NOTIFY])))
        self.is_closed = True


def update(is_asked):
    """The message of a key update (RFC 8446, 4.6.3)."""
    return bytes([KEY_UPDATE, 0, 0, 1, is_asked])
