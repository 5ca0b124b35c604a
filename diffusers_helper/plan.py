"""The plan of one video: its sections in the order of generation, each with its picture and prompt.

Section 0 is generated first and is the END of the video.
"""

from dataclasses import dataclass, replace

from .request import GenerationRequest
from .sections import (
    FPS,
    TILE_BLEND,
    TILE_LATENTS,
    TILE_STRIDE,
    Positions,
    SectionSize,
    pixel_frames,
    section_paddings,
    section_positions,
    tile_starts,
)


@dataclass(frozen=True)
class Section:
    """A section to generate. `picture` is the name of the picture that it is generated towards: the nearest
    keyframe at or before it in the video, else the start picture."""

    index: int
    is_last: bool
    size: SectionSize
    positions: Positions
    picture: str
    prompt: str

    @property
    def latent_frames(self) -> int:
        """Its latent frames, in the last with the start image's."""
        return self.size.latent_frames + self.is_last

    @property
    def decoded_latent_frames(self) -> int:
        """The latent frames decoded after it: its own, and as many of the section after it in the video as
        upstream's pixels take, which decodes all of that one.

        Where the tiles are in step it takes what the section's own tiles reach. Elsewhere two decodes of the
        same latent frames differ, upstream's fade over all of them shows it, and nothing less gives the same.
        """
        if self.index == 0:
            return self.latent_frames
        behind = TILE_LATENTS - TILE_STRIDE if self._is_in_step else self.size.latent_frames
        return self.latent_frames + behind

    @property
    def decoded_tiles(self) -> tuple[int, ...]:
        """The latent frames at which the tiles begin that are decoded after it."""
        if self._is_in_step:
            return tuple(range(0, self.latent_frames, TILE_STRIDE))
        return tile_starts(self.decoded_latent_frames)

    @property
    def join_weights(self) -> tuple[float, ...]:
        """The weights of its last frames where they meet the first stored ones.

        Upstream fades linearly from one to the other. Where the tiles are in step, both are the same from
        the tile on with which the frames there begin, but for the blend into it, whose weights come on top.
        """
        if self.index == 0:
            return ()
        overlap = self.size.overlap_frames
        fade = [1 - step / (overlap - 1) for step in range(overlap)]
        if not self._is_in_step:
            return tuple(fade)
        blend = [1 - step / TILE_BLEND for step in range(TILE_BLEND)]
        return (fade[0], *(a * b for a, b in zip(fade[1:], blend, strict=False)))

    @property
    def _is_in_step(self) -> bool:
        """True if its tiles fall on the same frames as those of the section decoded before it."""
        return self.index > 0 and self.latent_frames % TILE_STRIDE == 0


@dataclass(frozen=True)
class Plan:
    """The sections of a video in the order of generation, and its pictures by their names in the request:
    `start`, `end` (None for an open end), and `pictures`, each once, the start first."""

    size: SectionSize
    sections: tuple[Section, ...]
    start: str
    end: str | None
    pictures: tuple[str, ...]

    @property
    def latent_frames(self) -> int:
        """The latent frames of the whole video, the start image's included."""
        return 1 + len(self.sections) * self.size.latent_frames

    @property
    def pixel_frames(self) -> int:
        return pixel_frames(self.latent_frames)

    @property
    def decoded_frames(self) -> int:
        """The pixel frames of all sections, those that two share counted twice."""
        return sum(pixel_frames(section.decoded_latent_frames) for section in self.sections)

    @property
    def seconds(self) -> float:
        return self.pixel_frames / FPS


def make_plan(request: GenerationRequest) -> Plan:
    """Lay out a checked request section by section."""
    size, count = request.section_size, request.num_sections
    start, end = request.start_picture, request.end_picture
    prompts = {k.section: k.prompt for k in request.keyframes if k.prompt.strip()}
    images = {
        k.section: k.image for k in sorted(request.keyframes, key=lambda k: k.section) if k.image is not None
    }
    sections = [
        Section(
            index=index,
            is_last=index == count - 1,
            size=size,
            positions=section_positions(int(padding * size.window), size.latent_frames),
            picture=next((image for number, image in images.items() if number >= index), start),
            prompt=prompts.get(index, request.prompt),
        )
        for index, padding in enumerate(section_paddings(count, request.all_padding))
    ]
    if request.close_after is not None:  # the closing section at once: a shorter video of the same two ends
        sections[request.close_after :] = [replace(sections[-1], index=request.close_after)]
    pictures = dict.fromkeys([start, end, *(k.image for k in request.keyframes)])
    return Plan(size, tuple(sections), start, end, tuple(name for name in pictures if name is not None))
