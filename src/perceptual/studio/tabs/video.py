"""The tab Video: paints or enlarges a video."""

from __future__ import annotations

import html
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import gradio as gr
from torch import Tensor

from perceptual.config import STEADY_PAINTING, VideoConfig
from perceptual.errors import ConfigError, PerceptualError, VideoError
from perceptual.events import Step
from perceptual.studio import shown, snippets
from perceptual.studio.jobs import Job
from perceptual.studio.models import PAINTED_SIDE, Paint
from perceptual.studio.shown import PRIVATE, explained
from perceptual.studio.studio import Studio
from perceptual.studio.tabs import enlarge
from perceptual.studio.tabs.enlarge import SCALES
from perceptual.studio.tabs.panel import Panel

if TYPE_CHECKING:
    from perceptual.video import Info

PAINT, ENLARGE = "Paint it", "Enlarge it"
FORMATS = {"MP4": ".mp4", "WebM": ".webm", "GIF (no sound)": ".gif"}
FRAMES = 5
"""Number of frames in the preview."""
LOSSES = {"Fast (for video)": "video", **{name: loss for name, loss in enlarge.LOSSES.items() if loss != "auto"}}
PART = 320
"""Side in pixels of the part of an enlarged frame that the preview shows."""
STILL = 640
"""Longer side in pixels of the frame that is shown if the browser cannot play the video."""
_GRID = "display:grid;grid-template-columns:repeat(auto-fit,minmax({least}px,1fr));gap:12px"
_FIT = "width:100%;max-height:60vh;object-fit:contain;border-radius:8px"
_UNPLAYABLE = (
    "const still=new Image();still.src=this.poster;still.alt='First frame';still.style.cssText=this.style.cssText;"
    "this.nextElementSibling.hidden=false;this.replaceWith(still)"
)


class Choice(NamedTuple):
    """The values of the input fields, in the order of the page."""

    what: str
    style: str
    strength: float
    strokes: float
    colors: bool
    steady: float
    scale: str
    loss: str
    size: float | None
    start: float | None
    end: float | None
    kind: str
    sound: bool

    @property
    def enlarges(self) -> bool:
        """True for enlarging, False for painting."""
        return self.what == ENLARGE

    @property
    def network(self) -> str:
        """The network for enlarging, as in `Models.upscaler`."""
        return LOSSES.get(self.loss, self.loss)

    @property
    def suffix(self) -> str:
        """The file ending of the output, such as .mp4."""
        return FORMATS.get(self.kind, ".mp4")

    def paint(self) -> Paint:
        """The settings for painting each frame."""
        return Paint(
            styles={self.style: 1.0},
            strength=self.strength,
            strokes=self.strokes,
            keep_colors=bool(self.colors),
            size=int(self.size or 0) or None,
        )

    def config(self, studio: Studio, info: Info | None) -> VideoConfig:
        """The same settings for `perceptual video`. info: of the video; None for a video of 576 px.

        Raises:
            ConfigError: the settings do not fit together.
        """
        shared: dict[str, Any] = {
            "size": int(self.size or 0) or None,
            "start": _seconds(self.start),
            "end": _seconds(self.end),
            "sound": bool(self.sound) or self.suffix == ".gif",
            "device": studio.config.device,
        }
        if self.enlarges:
            if self.loss in LOSSES:
                network: dict[str, Any] = {"loss": self.network}
            else:
                network = {"network": studio.folder.own_upscaler(self.loss)}
            return VideoConfig(upscale=SCALES[self.scale], **network, **shared)
        options = self.paint().options(*((info.height, info.width) if info else (PAINTED_SIDE, PAINTED_SIDE)))
        return VideoConfig(
            style=studio.models.text({self.style: 1.0} if self.style else {}),
            strength=options.strength,
            keep_colors=options.keep_colors,
            style_scale=options.style_scale,
            steady=None if self.steady == STEADY_PAINTING else self.steady,
            **shared,
        )


def build(studio: Studio) -> Panel:
    """Make the tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            clip = gr.File(label="Clip: drop or choose a video", file_count="single", elem_id="video-clip")
            original = gr.HTML(elem_id="video-original")
            fields = _fields(list(studio.models.styles()), enlarge.networks(studio, LOSSES))
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                preview = gr.Button("Preview five frames", elem_id="video-preview")
                go = gr.Button("Convert", variant="primary", elem_id="video-go")
            frames = gr.HTML(elem_id="video-frames")
            result = gr.HTML(elem_id="video-result")
            panel = Panel(
                studio,
                "video",
                results="Converted clip",
                more=[result],
                refresh=lambda job: [_result(job)],
                stop="Stop and keep",
            )
            panel.style_fields = fields[1:2]
            enlarge.follow_networks(studio, panel, fields[Choice._fields.index("loss")], LOSSES)
            code = panel.code()
    work = _Work(studio)
    clip.change(explained(work.opened), clip, [original, frames], **PRIVATE)
    gr.on(
        [part.change for part in [clip, *fields]],
        explained(work.snippets),
        [clip, *fields],
        code,
        trigger_mode="always_last",
        **PRIVATE,
    )
    preview.click(explained(work.preview), [clip, *fields], frames, **PRIVATE)
    go.click(explained(work.convert), [clip, *fields], None, **PRIVATE)
    return panel


def _fields(names: list[str], networks: list[str]) -> list[Any]:
    """The input fields for `Choice`, in the order of its fields."""
    what = gr.Radio([PAINT, ENLARGE], value=PAINT, label="What to do", elem_id="video-what")
    with gr.Group() as painting:
        style = gr.Dropdown(names, value="starry_night", label="Style", elem_id="video-style")
        strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", elem_id="video-strength")
        strokes = gr.Slider(0.25, 4, 1, step=0.25, label="Stroke size", elem_id="video-strokes")
        colors = gr.Checkbox(label="Keep the colours of the clip", elem_id="video-colors")
        steady = gr.Slider(
            0, 0.9, STEADY_PAINTING, step=0.05, label="Steadiness (less flicker)", elem_id="video-steady"
        )
    with gr.Group(visible=False) as enlarging:
        scale = gr.Radio(list(SCALES), value="2 times", label="How much larger", elem_id="video-scale")
        loss = gr.Radio(networks, value="Fast (for video)", label="Network", elem_id="video-loss")
    with gr.Row():
        start = gr.Number(label="Start in seconds", value=0, minimum=0, min_width=120, elem_id="video-start")
        end = gr.Number(label="End in seconds (0: the end)", value=0, minimum=0, min_width=120, elem_id="video-end")
    size = gr.Number(
        label="Longer side in pixels (0: as the clip)", value=0, precision=0, minimum=0, elem_id="video-size"
    )
    kind = gr.Radio(list(FORMATS), value="MP4", label="Format", elem_id="video-format")
    sound = gr.Checkbox(value=True, label="Keep the sound", elem_id="video-sound")

    def switched(chosen: str) -> tuple[Any, Any]:
        return gr.Group(visible=chosen != ENLARGE), gr.Group(visible=chosen == ENLARGE)

    what.change(switched, what, [painting, enlarging], api_visibility="private", show_progress="hidden")
    return [what, style, strength, strokes, colors, steady, scale, loss, size, start, end, kind, sound]


class _Work:
    """The handlers of the tab."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def opened(self, clip: str | None) -> tuple[str, str]:
        """The video player for the chosen file, and an empty preview."""
        if not clip:
            return "", ""
        return _player(Path(clip), _described(self._info(clip)), self._still(clip)), ""

    def _still(self, clip: str) -> Tensor:
        """The first frame, (1, 3, h, w), with a longer side of at most STILL pixels."""
        from perceptual.video import open_video

        with _named(clip), open_video(clip, size=STILL) as video:
            return next(iter(video)).pixels

    def _info(self, clip: str) -> Info:
        info = _opened(clip)
        if info.width * info.height > self.studio.models.max_pixels:
            raise ConfigError(
                f"A frame has {info.width} x {info.height} px: scale the clip down, or start the page with a larger "
                "--max-megapixels."
            )
        return info

    def preview(self, clip: str | None, *values: Any) -> str:
        """The preview: some frames, before and after."""
        if not clip:
            raise ConfigError("Give a clip first.")
        from perceptual.video import stills

        choice = Choice(*values)
        info = self._info(clip)
        start, end = choice.config(self.studio, info).span
        convert, size = self._quick(choice, info)
        figures = []
        with _named(clip):
            for time, frame in stills(clip, FRAMES, start=start, end=end, size=size):
                figures.append((time, *convert(frame)))
        return _frames(figures)

    def _quick(self, choice: Choice, info: Info) -> tuple[Any, int | None]:
        """A quick function from a frame to (before, after), and the longer side at which frames are read."""
        models = self.studio.models
        if choice.enlarges:
            scale, loss = SCALES[choice.scale], choice.network
            return lambda frame: models.enlarged(_middle(frame, PART // scale), scale, loss), None
        paint = choice.paint()
        longer = min(paint.size or max(info.height, info.width), PAINTED_SIDE)
        side = max(16, min(PAINTED_SIDE, round(longer / choice.strokes)))
        return lambda frame: (frame, models.frame(frame, paint)), side

    def snippets(self, clip: str | None, *values: Any) -> tuple[str, str]:
        """The command line and the Python code for the current settings."""
        choice = Choice(*values)
        path = Path(clip) if clip else Path("clip.mp4")
        info = None
        with suppress(VideoError):  # `opened` shows this error
            info = self._info(clip) if clip else None
        return snippets.video(path, choice.config(self.studio, info), Path(_name(path, choice) + choice.suffix))

    def convert(self, clip: str | None, *values: Any) -> None:
        """Start a job that converts the video."""
        if not clip:
            raise ConfigError("Give a clip first.")
        studio, choice = self.studio, Choice(*values)
        config = choice.config(studio, self._info(clip))
        convert, settle, at_once = self._stages(choice, config)
        (source,) = studio.kept([Path(clip)])
        target = studio.folder.new(_name(source, choice), choice.suffix)

        def work(job: Job) -> Sequence[Path]:
            from perceptual.video import Conversion

            conversion = Conversion(source, target, convert, settle=settle, config=config)
            conversion.at_once = at_once
            try:
                with _named(source):
                    job.follow(_with_file_name(conversion.run(), source))
            finally:  # if the job is stopped, the output contains the frames so far
                job.results = (target,) if conversion.frames and target.exists() else ()
                if conversion.stopped:
                    job.say(f"It contains the first {float(conversion.seconds):.1f} s.")
            return job.results

        enlarging, painting = f"Enlarging {source.name} {choice.scale}", f"Painting {source.name} in {choice.style}"
        notes = {"source": source, "still": self._still(clip)}
        studio.jobs.add(Job(enlarging if choice.enlarges else painting, "video", work, notes=notes))

    def _stages(self, choice: Choice, config: VideoConfig) -> tuple[Any, Any, Any]:
        """What paints or enlarges a frame, what reduces flicker, or None, and what says how many frames of a size to
        work on at the same time."""
        from perceptual.motion import Steady, SteadyDetail

        models = self.studio.models
        if choice.enlarges:
            upscaler = models.upscaler(SCALES[choice.scale], choice.network)
            options = config.enlarging.options
            at_once = partial(upscaler.at_once, options=options)
            return partial(upscaler.apply, options=options), SteadyDetail(config.steadiness), at_once
        stylizer = models.stylizer({choice.style: 1.0}, video=True)
        settle = Steady(config.steadiness) if config.steadiness else None
        at_once = partial(stylizer.at_once, options=config.painting.options)
        return partial(stylizer.apply, options=config.painting.options), settle, at_once


@lru_cache(maxsize=64)
def _opened(clip: str) -> Info:
    """The properties of a video. They are cached, because an uploaded file does not change.

    Raises:
        VideoError: the file is not a video, or it is damaged.
    """
    from perceptual.video import open_video

    with _named(clip), open_video(clip) as video:
        return video.info


def _seconds(value: float | None) -> str | None:
    """A time in seconds, as text for `VideoConfig`; None for 0."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if value else None


def _name(clip: Path, choice: Choice) -> str:
    return f"{clip.stem}_x{SCALES[choice.scale]}" if choice.enlarges else f"{clip.stem}_{choice.style}"


def _plain(sentence: str, clip: str | Path) -> str:
    """A message with the file name in place of the path, and without the dashes of flags."""
    return sentence.replace(str(clip), Path(clip).name).replace(" --", " ").replace("(--", "(")


@contextmanager
def _named(clip: str | Path) -> Generator[None, None, None]:
    """Replace the path of the video in error messages by its file name."""
    try:
        yield
    except PerceptualError as error:
        raise VideoError(_plain(str(error), clip)) from error


def _with_file_name(steps: Generator[Step, None, None], clip: Path) -> Generator[Step, None, None]:
    """The Steps of a conversion, with the file name in place of the path in their messages."""
    with closing(steps):
        for step in steps:
            yield replace(step, message=step.message and _plain(step.message, clip))


def _described(info: Info) -> str:
    parts = [f"{info.width} x {info.height} px"]
    if info.seconds is not None:
        parts.insert(0, f"{float(info.seconds):.4g} s")
    if info.rate is not None:
        parts.append(f"{float(info.rate):.4g} frames per second")
    return ", ".join([*parts, "with sound" if info.sounds else "no sound"])


def _middle(frame: Tensor, side: int) -> Tensor:
    """The centre of a frame, at most `side` pixels high and wide."""
    top, left = (max(0, (length - side) // 2) for length in frame.shape[-2:])
    return frame[..., top : top + side, left : left + side]


def _frames(figures: Sequence[tuple[float, Tensor, Tensor]]) -> str:
    """Frames before and after, as HTML."""
    cells = []
    for time, before, after in figures:
        pictures = "".join(
            f'<img src="{shown.data_url(each)}" alt="Frame at {time:.2f} s, {name}" style="{_FIT}">'
            for each, name in ((before, "before"), (after, "after"))
        )
        cells.append(f'<figure style="margin:0">{pictures}<figcaption>{time:.2f} s</figcaption></figure>')
    return f'<div style="{_GRID.format(least=120)}">{"".join(cells)}</div>'


def _player(path: Path, caption: str, still: Tensor | None = None) -> str:
    """A video player as HTML. If the browser cannot play the file, it shows `still`, a frame (1, 3, H, W)."""
    source = f"/gradio_api/file={quote(str(path))}"
    text = html.escape(caption)
    if path.suffix.lower() in (".gif", ".webp"):
        player = f'<img src="{source}" alt="{text}" style="{_FIT}">'
    else:
        poster = f' poster="{shown.data_url(still)}" onerror="{_UNPLAYABLE}"' if still is not None else ""
        player = (
            f'<video src="{source}" controls loop playsinline preload="metadata" aria-label="{text}" style="{_FIT}"'
            f'{poster}></video><p hidden style="margin:0">This browser cannot play this format, so a frame is shown. '
            "You can still convert it.</p>"
        )
    return f'<figure style="margin:0">{player}<figcaption>{text}</figcaption></figure>'


def _result(job: Job | None) -> str:
    """The speed of a running job, or both videos of a finished job side by side."""
    if job is None:
        return ""
    if job.status == "running":
        return f"<p>{job.index / max(job.seconds, 1e-3):.1f} frames per second</p>" if job.index else ""
    if not job.results:
        return ""
    both = _player(job.notes["source"], "Before", job.notes["still"]) + _player(job.results[0], "After")
    return f'<div style="{_GRID.format(least=260)}">{both}</div>'
