#!/usr/bin/env python3
"""Raw pictures with the time in them: 640x360 gray, 30 a second, to standard output.

The milliseconds since 1970, modulo 2^24, are 24 squares of 40x40 pixels in two rows, the highest bit first, behind
a check of 4 bits: white is 1. What reads them needs no font and survives an encoder. Ends after the seconds that
the argument says.
"""
import sys
import time

WIDTH, HEIGHT, RATE, SIDE, COLUMNS = 640, 360, 30, 40, 14
BITS, CHECK = 24, 4


def picture(at_ms):
    value = at_ms % (1 << BITS)
    check = sum((value >> (4 * n)) & 15 for n in range(6)) & 15
    bits = f"{value:024b}{check:04b}"
    rows = []
    for row in range(2):
        line = bytearray(b"\x60" * WIDTH)
        for column in range(COLUMNS):
            if row * COLUMNS + column < BITS + CHECK:
                line[20 + column * SIDE:20 + (column + 1) * SIDE] = (b"\xeb" if bits[row * COLUMNS + column] == "1" else b"\x10") * SIDE
        rows.append(bytes(line) * SIDE)
    gray = b"\x60" * (WIDTH * 20)
    # Something moves below, so that the encoder has work.
    shift = (at_ms // 8) % WIDTH
    moving = bytes((x + shift) % 160 + 40 for x in range(WIDTH)) * (HEIGHT - 40 - 2 * SIDE - 20)
    return gray + rows[0] + rows[1] + gray + moving + b"\x60" * (WIDTH * 20)


def main(seconds):
    out, start, n = sys.stdout.buffer, time.time(), 0
    while n < seconds * RATE:
        wait = start + n / RATE - time.time()
        if wait > 0:
            time.sleep(wait)
        out.write(picture(int(time.time() * 1000)))
        out.flush()
        n += 1


main(float(sys.argv[1]))
