#!/usr/bin/env bash
# Makes the certificates of this folder anew, with OpenSSL 3 and libfaketime: other keys, the same
# contents. They are for tests alone; the key is public, so nobody may trust it.
set -euo pipefail
cd "$(dirname "$0")"
library=$(echo /usr/lib/*/faketime/libfaketime.so.1)
# Without it the loader would only warn, and the dates be those of today.
[ -e "$library" ] || { echo "libfaketime is missing: install the package libfaketime" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# `openssl ca` takes the dates as they are.
cat >"$scratch/ca.cnf" <<EOF
[ca]
default_ca = it
[it]
database = $scratch/index
new_certs_dir = $scratch
serial = $scratch/serial
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = optional
organizationName = optional
[req]
distinguished_name = names
[names]
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectAltName = DNS:box.example, DNS:localhost
[odd]
basicConstraints = CA:FALSE
subjectAltName = DNS:odd.example, DNS:*.odd.example, IP:192.0.2.7, IP:2001:db8::7, email:a@odd.example, \
    URI:https://odd.example/, dirName:names_of_odd, DNS:xn--bcher-kva.example
[names_of_odd]
CN = someone
[plain]
basicConstraints = CA:FALSE
EOF

# Usage: certificate NAME SUBJECT KEY SERIAL FIRST LAST EXTENSIONS [ISSUER]
certificate() {
    local name=$1 subject=$2 key=$3 serial=$4 first=$5 last=$6 extensions=$7 issuer=${8:-}
    # shellcheck disable=SC2086 # the kind of key is several words
    openssl genpkey -quiet $key -out "$scratch/$name.key"
    openssl req -new -config "$scratch/ca.cnf" -key "$scratch/$name.key" -subj "$subject" -out "$scratch/$name.csr"
    if [ -z "$last" ]; then
        # `openssl ca` has no negative serial numbers.
        TZ=UTC LD_PRELOAD=$library FAKETIME=$first \
            openssl x509 -req -in "$scratch/$name.csr" -signkey "$scratch/$name.key" -set_serial "$serial" \
            -days 12000 -extfile "$scratch/ca.cnf" -extensions "$extensions" \
            -out "$scratch/$name.pem" 2>/dev/null
    else
        : >"$scratch/index"
        echo "$serial" >"$scratch/serial"
        local signer=(-selfsign -keyfile "$scratch/$name.key")
        [ -z "$issuer" ] || signer=(-keyfile "$scratch/$issuer.key" -cert "$scratch/$issuer.pem")
        openssl ca -batch -notext -config "$scratch/ca.cnf" "${signer[@]}" -in "$scratch/$name.csr" \
            -startdate "$first" -enddate "$last" -extensions "$extensions" -out "$scratch/$name.pem" \
            2>"$scratch/said" || { cat "$scratch/said" >&2; exit 1; }
    fi
    openssl x509 -in "$scratch/$name.pem" -outform DER -out "$name.der"
}

p256="-algorithm EC -pkeyopt ec_paramgen_curve:P-256"
certificate server "/CN=box.example" "$p256" 01 20260101000000Z 21260101000000Z server
openssl pkcs8 -topk8 -nocrypt -in "$scratch/server.key" -outform DER -out server.key.der
certificate odd "/O=Odd/CN=odd.example" "-algorithm RSA -pkeyopt rsa_keygen_bits:2048" -1234567890 "2026-01-01 00:00:00" "" odd
certificate p384 "/CN=last" "-algorithm EC -pkeyopt ec_paramgen_curve:P-384" 01 500101000000Z 491231235959Z plain
certificate ed25519 "/CN=leaf" "-algorithm ED25519" 01 20000229120000Z 99991231235959Z plain p384
certificate rsa3072 "/CN=long" "-algorithm RSA -pkeyopt rsa_keygen_bits:3072" 01 19700101000000Z 20500101000000Z plain p384
