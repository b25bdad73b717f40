"""Writes a program that is right for a board and useless: it ends with 1 at once, or never does
anything.

    broken.py aarch64|riscv64 crash|hang FILE
"""

import pathlib
import struct
import sys

# ELF's number of the machine, its flags, and the code: exit(1), or ppoll(NULL, 0, NULL, NULL).
MACHINES = {
    "aarch64": (
        183,
        0,
        {
            # mov x0, #1; mov x8, #93; svc #0
            "crash": (0xD2800020, 0xD2800BA8, 0xD4000001),
            # mov x0..x3, #0; mov x8, #73; svc #0
            "hang": (0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001),
        },
    ),
    "riscv64": (
        243,
        # Compressed instructions, floats of 64 bits in registers.
        0x5,
        {
            # li a0, 1; li a7, 93; ecall
            "crash": (0x00100513, 0x05D00893, 0x00000073),
            # li a0..a3, 0; li a7, 73; ecall
            "hang": (0x00000513, 0x00000593, 0x00000613, 0x00000693, 0x04900893, 0x00000073),
        },
    ),
}

BASE, HEADERS = 0x400000, 64 + 56


def program(machine, kind):
    number, flags, codes = MACHINES[machine]
    code = b"".join(struct.pack("<I", word) for word in codes[kind])
    size = HEADERS + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2, number, 1, BASE + HEADERS, 64, 0, flags, 64, 56, 1, 64, 0, 0,
    )  # fmt: skip
    # One segment, to be read and executed: all of the file.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x10000)
    return header + segment + code


machine, kind, file = sys.argv[1:]
path = pathlib.Path(file)
path.write_bytes(program(machine, kind))
path.chmod(0o755)
