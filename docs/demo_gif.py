"""Make the README's moving picture from a video that the demo has made.

bash start.sh --demo --headless examples/hello.json --name hello
python -m docs.demo_gif webui/outputs/hello.mp4
"""

import sys
from pathlib import Path

from PIL import Image

from diffusers_helper.media.video import read_frames

EVERY = 3
"""One frame of so many is shown, for as long as they all take: at 30 a second, 100 ms."""


def main() -> None:
    shown = [Image.fromarray(frame) for frame in read_frames(Path(sys.argv[1]))][::EVERY]
    palette = shown[len(shown) // 2].quantize(192, dither=Image.Dither.NONE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in shown]
    path = Path(__file__).with_name("demo.gif")
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 * EVERY // 30, loop=0)


if __name__ == "__main__":
    main()
