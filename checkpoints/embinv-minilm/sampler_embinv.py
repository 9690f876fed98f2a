"""One call of the sampler: the five decoding strategies of the paper around one loop, and one from left to right."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .causal_embinv import check_causal
from .conditioning_embinv import Condition
from .conditioning_embinv import Hypothesis
from .conditioning_embinv import condition_of_copies
from .diffusion_embinv import Canvas
from .diffusion_embinv import after_first
from .diffusion_embinv import confidence_step
from .diffusion_embinv import euler_step
from .diffusion_embinv import remask_step
from .diffusion_embinv import sample_tokens
from .diffusion_embinv import sequential_step
from .diffusion_embinv import shortest_canvases
from .drafting_embinv import write_beams
from .drafting_embinv import write_left_to_right
from .favoured_embinv import Favoured
from .settings_embinv import SamplerSettings


# logits of a part of the rows, 1 GiB in float32; a GPU holds about four arrays of that size
MAX_LOGITS = 2**28
# those that a CPU chooses tokens from at once, 32 MiB: arrays of hundreds of MiB take up to thrice the time
CHOICE_LOGITS = 2**23
# below this temperature logits may be infinite when divided by it; the likeliest token is then certain anyway
COLDEST = 1e-6
# (canvas, tokens, their probabilities, step, draws for the choice of positions, rows) → the next canvas
StepFunction = Callable[[Canvas, Tensor, Tensor, int, Tensor | None, Tensor], Canvas]


class Sampler:
    """One call of `generate`: the canvas, its noise, and the loop that every strategy shares.

    generators: of each row, or None for the global one. on_draft: is given the canvas after each pass.
    draft_ids: (B, L), the canvas to start from.
    barred_ids: (B, L), a token that a position must not get, −1 for none.
    hypothesis: what the texts correct, with strategy "autoregressive" and without guidance.
    favoured: words that get a bonus, with strategy "autoregressive" and without beams.
    keeps_draft: whether the draft's tokens stay, and no end is written before one; edits of a search may be cut so.

    no_end: (B, L) bool, positions that must not get an end token. fixed: (B, L) bool, those that stay.
    """

    def __init__(
        self,
        model: Any,
        embeddings: Tensor,
        config: SamplerSettings,
        generators: Sequence[torch.Generator | None] | None,
        on_draft: Callable[[Canvas], None] | None = None,
        draft_ids: Tensor | None = None,
        barred_ids: Tensor | None = None,
        keeps_draft: bool = False,
        hypothesis: Hypothesis | None = None,
        favoured: Favoured | None = None,
    ) -> None:
        self.model, self.embeddings, self.config, self.on_draft = model, embeddings, config, on_draft
        self.hypothesis, self.favoured = hypothesis, favoured
        self.condition, self.barred_ids = self._condition(), barred_ids
        tokens = model.config.mask_token_id, model.config.eos_token_id
        _, _, length = shape_of_draws(config)
        self.canvas = Canvas.fully_masked(len(embeddings), length, *tokens, embeddings.device)
        self.canvas_lengths: Sequence[int] = ()
        if draft_ids is not None:
            self.canvas_lengths = model.config.canvas_lengths or ()
            self.canvas = self.canvas.filled(draft_ids.to(embeddings.device))
        self.no_end = torch.zeros_like(self.canvas.masked)
        self.no_end[:, 0] = True  # no text is empty
        self.fixed = ~self.canvas.masked & keeps_draft
        given = self.fixed & (self.canvas.ids != self.canvas.end_token_id)
        self.no_end |= given.flip(1).cummax(dim=1).values.flip(1)
        samples = samples_by_itself(config)
        self.temperature = float(samples) if config.temperature is None else config.temperature
        self.suppressed = torch.tensor(
            sorted({model.config.mask_token_id, *(config.suppress_tokens or ())}), device=embeddings.device
        )
        self.num_forward_passes = 0
        self.history: list[Canvas] = []
        self.draws = self._draw(generators) if samples or self.temperature > 0 else None

    def _draw(self, generators: Sequence[torch.Generator | None] | None) -> Tensor:
        """Uniform draws (B, passes, 2, L): for the choice of tokens, and of positions. Row by row, see `generate`."""
        shape, rows = shape_of_draws(self.config), []
        for generator in generators or [None] * len(self.embeddings):
            device = "cpu" if generator is None else generator.device
            rows.append(torch.rand(shape, generator=generator, device=device, dtype=torch.float32))
        device = self.embeddings.device
        return torch.stack(rows).to(device) if rows else torch.empty(0, *shape, device=device, dtype=torch.float32)

    def run(self) -> Canvas:
        """The canvas with every position filled."""
        strategy, num_steps = self.config.strategy, self.config.num_steps
        if strategy == "confidence":
            self._loop(num_steps, lambda canvas, tokens, p, i, *_: confidence_step(canvas, tokens, p, num_steps - i))
        elif strategy == "sequential":
            self._sequential()
        elif strategy == "autoregressive":
            self._left_to_right()
        elif strategy == "two_stage":
            self._first_stage()
            self._reopen(self.config.restart_ratio)
            self._euler(first_draw=self.canvas.ids.shape[1])
        elif strategy == "euler":
            self._euler()
        elif strategy == "euler_remask":
            self._euler(self.config.remask_ratio)
        else:
            raise NotImplementedError(f"Sampler.run has no branch for the strategy {strategy!r}")
        return self.canvas

    def _sequential(self) -> None:
        self._loop(
            self.canvas.ids.shape[1],
            lambda canvas, tokens, p, *_: sequential_step(canvas, tokens, p),
            wanted=lambda masked: masked & ~after_first(masked),
        )

    def _first_stage(self) -> None:
        """Of two_stage: a greedy draft."""
        temperature, self.temperature = self.temperature, 0.0
        if self.config.draft == "sequential":
            self._sequential()
        else:
            self._left_to_right()
            self.canvas_lengths = self.model.config.canvas_lengths or ()  # it has seen no canvas that it could keep
        self.temperature = temperature

    def _left_to_right(self) -> None:
        check_causal(self.model.config)
        if self.config.num_draft_beams > 1 and self.temperature == 0:
            write_beams(self, self.config.num_draft_beams)
        else:
            write_left_to_right(self)

    def _euler(self, remask_ratio: float = 0.0, first_draw: int = 0) -> None:
        """Uniform timesteps from where each row stands down to 0."""
        num_steps, schedule = self.config.num_steps, self.model.noise_schedule
        start = schedule.timestep(self.canvas.masked.float().mean(dim=1))  # (B,)
        shares = torch.linspace(1, 0, num_steps + 1, dtype=start.dtype, device=start.device)
        alphas = schedule.alpha(start * shares[:, None])

        def step_fn(
            canvas: Canvas, tokens: Tensor, p: Tensor, step: int, draws: Tensor | None, active: Tensor
        ) -> Canvas:
            assert draws is not None  # these strategies always draw
            canvas = euler_step(canvas, tokens, p, alphas[step, active], alphas[step + 1, active], draws)
            if not remask_ratio or step + 1 == num_steps:
                return canvas
            return remask_step(canvas, remask_ratio, self.fixed[active])

        self._loop(num_steps, step_fn, first_draw=first_draw)

    def _reopen(self, ratio: float) -> None:
        """Mask the least sure tokens of each row's text, its end token among them."""
        self.canvas = remask_step(self.canvas, ratio, self.fixed) if ratio else self.canvas

    def _loop(
        self,
        num_steps: int,
        step_fn: StepFunction,
        wanted: Callable[[Tensor], Tensor] = lambda masked: masked,
        first_draw: int = 0,
    ) -> None:
        """Up to `num_steps` passes over the rows that still have masked positions; only `wanted` ones get logits.

        Noise is taken from `first_draw` on, not from where the passes stand, which other rows decide.
        """
        for step in range(num_steps):
            active = self.canvas.masked.any(dim=1).nonzero().squeeze(1)
            if not len(active):
                break
            canvas = self.canvas.rows(active)
            noise = None if self.draws is None else self.draws[active, first_draw + step]  # (A, 2, L)
            tokens, confidence = self._denoise(canvas, active, wanted(canvas.masked), noise)
            canvas = step_fn(canvas, tokens, confidence, step, None if noise is None else noise[:, 1], active)
            self.canvas.ids[active], self.canvas.confidence[active] = canvas.ids, canvas.confidence
            self._record()

    def _denoise(self, canvas: Canvas, active: Tensor, wanted: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """A token and its probability at each wanted position, (A, L) each; others hold [MASK] and 0.

        A draft whose end is known gets the shortest canvas that the model was trained on and that holds it: ends
        behind the first say nothing more. A text that starts from nothing keeps its canvas: it loses by a change.
        """
        self.num_forward_passes += 1
        tokens = torch.full_like(canvas.ids, canvas.mask_token_id)
        confidence = torch.zeros_like(canvas.confidence)
        for length, rows in shortest_canvases(canvas.ids, canvas.end_token_id, self.canvas_lengths):
            for part in rows.split(max(1, MAX_LOGITS // (length * self.model.config.vocab_size))):
                draws = None if noise is None else noise[part, 0, :length]
                tokens[part, :length], confidence[part, :length] = self._denoise_part(
                    canvas.rows(part).cut(length), active[part], wanted[part, :length], draws
                )
        return tokens, confidence

    def _denoise_part(
        self, canvas: Canvas, active: Tensor, wanted: Tensor, draws: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        positions = wanted.flatten().nonzero().squeeze(1)
        logits, number = self._shared_logits(canvas, active, wanted)
        no_end = self.no_end[active, : wanted.shape[1]].flatten()[positions]
        barred = None if self.barred_ids is None else self.barred_ids[active, : wanted.shape[1]].flatten()[positions]
        draws = None if draws is None else draws.flatten()[positions]
        tokens = torch.full_like(canvas.ids, canvas.mask_token_id).flatten()
        confidence = torch.zeros_like(canvas.confidence).flatten()
        rows = max(1, (CHOICE_LOGITS if logits.is_cpu else MAX_LOGITS) // logits.shape[1])
        for first in range(0, len(positions), rows):
            few = slice(first, first + rows)
            tokens[positions[few]], confidence[positions[few]] = self._choose(
                logits[few if number is None else number[few]],
                no_end[few],
                *(None if values is None else values[few] for values in (barred, draws)),
            )
        return tokens.view_as(canvas.ids), confidence.view_as(canvas.confidence)

    @cached_property
    def _vector_number(self) -> Tensor:
        """(B,) of each row's vector, the same for neighbouring copies; texts from left to right need none."""
        return torch.unique_consecutive(self.embeddings, return_inverse=True, dim=0)[1]

    def _shared_logits(self, canvas: Canvas, active: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (U, V), and which of them belong to each of the M wanted positions (A, L); None where U = M.

        Rows of equal canvases and vectors share one of the pass: edits of a search often mask the same words.
        """
        rows = torch.cat([self._vector_number[active, None], canvas.ids], dim=1)
        different, number = rows.unique(dim=0, return_inverse=True)
        if len(different) == len(rows):
            return self._logits(canvas, active, wanted.flatten().nonzero().squeeze(1)), None
        one = torch.zeros_like(different[:, 0]).scatter(0, number, torch.arange(len(rows), device=rows.device))
        places = wanted[one]
        logits = self._logits(canvas.rows(one), active[one], places.flatten().nonzero().squeeze(1))
        of_places = places.flatten().cumsum(dim=0).view_as(places) - 1
        return logits, of_places[number][wanted]

    def _choose(
        self, logits: Tensor, no_end: Tensor, barred: Tensor | None, draws: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """A token of each row (M, V) and its probability; changes the logits.

        Args:
            no_end: (M,) bool, positions that must not get an end.
            barred: (M,) tokens that are not allowed, −1 for none.
            draws: (M,) uniform in [0, 1), where the temperature is above 0.
        """
        logits = self._allowed(logits, no_end, barred)
        probabilities = logits.softmax(dim=-1)
        if draws is None or self.temperature == 0:
            chosen_p, chosen = probabilities.max(dim=-1)
            return chosen, chosen_p
        chosen = sample_tokens(logits.div_(max(self.temperature, COLDEST)), draws)
        return chosen, probabilities.gather(1, chosen[:, None]).squeeze(1)

    def _allowed(self, logits: Tensor, no_end: Tensor, barred: Tensor | None) -> Tensor:
        """Logits in float32, −∞ for what may not be written; arguments as of `_choose`."""
        logits = logits.float()
        logits[:, self.suppressed] = -torch.inf
        if barred is not None:
            logits[barred >= 0, barred[barred >= 0]] = -torch.inf
        logits[no_end, self.canvas.end_token_id] = -torch.inf
        return logits

    def _condition(self) -> Condition:
        """What e tells the model, computed once; with guidance, the null condition's rows follow."""
        rows, device = len(self.embeddings), self.embeddings.device
        if self.config.guidance_scale == 1.0:
            if self.hypothesis is not None:  # of copies of a vector, each has its own
                return self.model.condition(self.embeddings, hypothesis=self.hypothesis)
            return condition_of_copies(self.model, self.embeddings)
        conditional = torch.arange(2 * rows, device=device) < rows
        return self.model.condition(self.embeddings.repeat(2, 1), conditional)

    def _logits(self, canvas: Canvas, active: Tensor, positions: Tensor) -> Tensor:
        """Logits (M, V) at flat positions; with guidance, both branches in one batch."""
        timestep = self.model.noise_schedule.timestep(canvas.masked.float().mean(dim=1))
        scale = self.config.guidance_scale
        if scale == 1.0:
            condition = self.condition.rows(active)
            return self.model(canvas.ids, None, timestep, positions=positions, condition=condition).logits
        logits = self.model(
            canvas.ids.repeat(2, 1),
            None,
            timestep.repeat(2),
            positions=torch.cat([positions, positions + canvas.ids.numel()]),
            condition=self.condition.rows(torch.cat([active, active + len(self.embeddings)])),
        ).logits
        conditional, null = logits.float().chunk(2)  # their log-softmax differs by a constant a row
        return null + scale * (conditional - null)

    def _record(self) -> None:
        if self.config.return_history:
            self.history.append(self.canvas.rows(torch.arange(len(self.canvas.ids), device=self.canvas.ids.device)))
        if self.on_draft is not None:
            self.on_draft(self.canvas)


def samples_by_itself(config: SamplerSettings) -> bool:
    """Whether the strategy draws noise at any temperature."""
    return config.strategy in ("euler", "euler_remask", "two_stage")


def shape_of_draws(config: SamplerSettings) -> tuple[int, int, int]:
    """(passes, 2, L), the shape of a row's noise."""
    length, steps = config.max_length, config.num_steps
    assert length is not None  # `generate` fills it in
    # sequential and confidence commit at least one position a pass
    passes = {"sequential": length, "two_stage": length + steps, "confidence": min(length, steps)}
    passes["autoregressive"] = 1  # a position is chosen once: one row of draws holds them all
    return passes.get(config.strategy, steps), 2, length
