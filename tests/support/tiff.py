"""TIFF files of kinds that Pillow does not write."""

import struct

import numpy as np

_SIZES, _CODES = {3: 2, 4: 4}, {3: "H", 4: "I"}


def tiff_file(
    values: np.ndarray, photometric: int, order: str = "<", planes: bool = False, tile: int | None = None
) -> bytes:
    """A TIFF file without compression: `(h, w)` or `(h, w, n)` unsigned or floats, `order` "<" or ">".

    `photometric`: 0 where 0 is white, 1 where it is black, 2 for RGB, 5 for CMYK. `tile` divides both sides.
    """
    height, width = values.shape[:2]
    number = 1 if values.ndim == 2 else values.shape[2]
    values = values.astype(values.dtype.newbyteorder(order))
    if tile is not None:
        corners = [(top, left) for top in range(0, height, tile) for left in range(0, width, tile)]
        blocks = [values[top : top + tile, left : left + tile].tobytes() for top, left in corners]
    elif planes:
        blocks = [values[..., place].tobytes() for place in range(number)]
    else:
        blocks = [values.tobytes()]
    tags: dict[int, tuple[int, list[int]]] = {
        256: (3, [width]), 257: (3, [height]), 258: (3, [values.dtype.itemsize * 8] * number),
        259: (3, [1]), 262: (3, [photometric]), 277: (3, [number]), 284: (3, [2 if planes else 1]),
        339: (3, [3 if values.dtype.kind == "f" else 1] * number),
    }  # fmt: skip
    if number in (2, 4) and photometric != 5:
        tags[338] = (3, [2])
    tags |= {278: (3, [height])} if tile is None else {322: (3, [tile]), 323: (3, [tile])}
    offsets, counts = (273, 279) if tile is None else (324, 325)
    tags[counts] = (4, [len(block) for block in blocks])
    tags[offsets] = (4, [0] * len(blocks))
    behind = 14 + 12 * len(tags)
    start = behind + sum(size for kind, entries in tags.values() if (size := _SIZES[kind] * len(entries)) > 4)
    tags[offsets] = (4, [start + sum(map(len, blocks[:place])) for place in range(len(blocks))])
    table, data = b"", b""
    for key in sorted(tags):
        kind, entries = tags[key]
        packed = struct.pack(f"{order}{len(entries)}{_CODES[kind]}", *entries)
        table += struct.pack(f"{order}HHI", key, kind, len(entries))
        if len(packed) <= 4:
            table += packed.ljust(4, b"\0")
        else:
            table += struct.pack(f"{order}I", behind + len(data))
            data += packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + table + bytes(4) + data + b"".join(blocks)
