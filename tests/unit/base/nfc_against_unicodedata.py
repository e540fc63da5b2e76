#!/usr/bin/python3
"""nfc_against_unicodedata.py TEST_NFC: base/nfc.c against Python's unicodedata: every code point alone and between others, and random sequences of the ones that matter."""
import random, subprocess, sys, unicodedata

SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
# What normalization does something with, or whose order matters. libunistring may know a younger Unicode: what Python does not know is left out.
KNOWN = [c for c in SCALARS if unicodedata.category(chr(c)) not in ("Cn", "Co")]
MARKS = [chr(c) for c in KNOWN if unicodedata.combining(chr(c))]
MOVING = [chr(c) for c in KNOWN if unicodedata.normalize("NFD", chr(c)) != chr(c) and not 0xAC00 <= c < 0xD7A4]
PARTS = sorted({c for m in MOVING for c in unicodedata.normalize("NFD", m)})
JAMO = [chr(c) for c in (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3), 0xAC00, 0xAC01, 0xD7A3)]


def sequences():
    for c in KNOWN:
        yield chr(c)
        yield "a" + chr(c) + "\u0323"
    draw = random.Random(20261122)
    pools = [MARKS, MOVING, PARTS, JAMO, "aAsSoOuUq1 "]
    for _ in range(60000):
        yield "".join(draw.choice(draw.choice(pools)) for _ in range(draw.randint(1, 12)))
    for _ in range(200):
        yield "".join(draw.choice(draw.choice(pools)) for _ in range(200))


def main():
    texts = list(sequences())
    done = subprocess.run([sys.argv[1], "check"], input="\n".join(t.encode().hex() for t in texts), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == len(texts), (len(done.stdout), len(texts))
    wrong = [t for t, said in zip(texts, done.stdout) if (said == "y") != unicodedata.is_normalized("NFC", t)]
    assert not wrong, f"{len(wrong)} wrong, among them {[ascii(t) for t in wrong[:5]]}"
    print(f"{len(texts)} texts, {done.stdout.count('n')} of them not in NFC, Unicode {unicodedata.unidata_version}")


main()
