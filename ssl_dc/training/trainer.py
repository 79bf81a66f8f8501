"""The training loop. It uses the interfaces of parts, and no part by name."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_dc.budget_control import budget_control
from ssl_dc.config.schema import BudgetConfig, TrainingConfig
from ssl_dc.data.base import ImageSet
from ssl_dc.data.workers import worker_failures
from ssl_dc.distributed import gather_batch, gather_batches, peer_failures, rank, world_size
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, RunError, SslDcError, Stopped
from ssl_dc.evaluation_mode import evaluation_mode
from ssl_dc.gating.base import GatingScheme, gates_of, set_budgets
from ssl_dc.gating.cost import CostModel, Trace
from ssl_dc.named_parts import NamedParts
from ssl_dc.norms.global_batch import with_global_norms
from ssl_dc.objectives.base import Objective, check_batch, check_views
from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.optimizers.fused import fuse
from ssl_dc.plugins.registry import Registered
from ssl_dc.routes import Route
from ssl_dc.seeds import kept_random_states, seed_everything
from ssl_dc.tensor_files import fill
from ssl_dc.trackers.base import COMPILING, StepMetrics, Stopwatch, Watcher, phase
from ssl_dc.training.accelerator import make_accelerator
from ssl_dc.training.batches import Batches, BatchViews, Loader, LoaderBatches, ViewBatches
from ssl_dc.training.checkpoint import Checkpoint, CheckpointStore, optimizer_tensors, restore_optimizer
from ssl_dc.training.compiled_forward import CompiledForward
from ssl_dc.training.contract import Contract, check_optimizer
from ssl_dc.training.device_batches import DeviceBatches
from ssl_dc.training.distillation import TERM, distillation
from ssl_dc.training.kept_memory import kept_memory
from ssl_dc.training.learner import Learner, LearnerOutput
from ssl_dc.training.length import Lengths
from ssl_dc.training.looks import Looks
from ssl_dc.training.numerics import NumericsWatch, StepLoss
from ssl_dc.training.step_metrics import Measured
from ssl_dc.training.stopping import StopSignals, answered_in_words
from ssl_dc.training_cost import check_local_budget, local_cost
from ssl_dc.views.base import BatchedViews, Views, check_local_views

_STEP = 1
"""Together with the run's seed and the step, the key of the seed that a step draws from."""
_BUDGET = 2
"""Key of the seeds that budgets are drawn from."""
_DENSE = 3
"""Key of the seeds that dense steps are drawn from."""

DEFAULT_BUDGET = BudgetConfig()
"""The budget of a training that is given none."""


class Trainer:
    """Trains an encoder with an objective and a gating scheme.

    The objects may be composed by hand, or built by :mod:`ssl_dc.assemble` from a config.

    Args:
        encoder: It is trained in place.
        objective: It is trained in place.
        gating: The scheme that the encoder's gates come from.
        optimizer: Builds the optimiser from parameter groups. Its learning rate is the peak of the schedule.
        image_size: Side of the views, in pixels; of the global ones if there are local ones.
        training: Length, batch, precision.
        cost: What the encoder costs at ``image_size``. It is counted here if it is not given.
        images: The training images, of which ``views`` draws the views.
        views: Draws the views of an image, one for each route.
        loader: Gives the batches in place of ``images`` and ``views``: each has one view (N, 3, image_size, image_size) for
            each route.
        view_sizes: Side of each view of the loader's batches, in pixels, if some are local: smaller, and after the others.
        budget: What the gated route may cost. A scheme without gates does not use its target.
        routes: The route of each view. There are as many as the objective takes views.
        seed: Seed of the order of the images, of the views and of the gates' noise.
        registered: The records of the parts that come from the registry, by kind. Messages name a part by its record, or by
            its class.

    Raises:
        PluginError: If the optimiser does not hold all trained parameters.
        ConfigError: If neither or both of a loader and images with their views are given, if the batches or local views do
            not fit, or if the objective takes another number of views or more images at once.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        objective: Objective,
        gating: GatingScheme,
        optimizer: Callable[[Sequence[ParameterGroup]], Optimizer],
        image_size: int,
        training: TrainingConfig,
        cost: CostModel | None = None,
        images: ImageSet | None = None,
        views: Views | None = None,
        loader: Loader | None = None,
        view_sizes: Sequence[int] | None = None,
        budget: BudgetConfig = DEFAULT_BUDGET,
        routes: Sequence[Route] = (Route.GATED, Route.DENSE),
        seed: int = 0,
        registered: Mapping[str, Registered] | None = None,
    ) -> None:
        self.parts = NamedParts(
            {"objective": objective, "gating": gating, "encoder": encoder, "views": views, "data": images}, registered or {}
        )
        check_views(objective, self.parts.name("objective"), routes)
        if loader is None:  # the size of a caller's batches is known when the first one comes
            check_batch(objective, self.parts.name("objective"), training.batch_size // training.accumulation)
        self.accelerator = make_accelerator(training.precision)
        self.training, self.routes, self.seed = training, tuple(routes), seed
        self.gating = gating
        self.view_sizes = _view_sizes(views, view_sizes, image_size, self.routes)
        self.batches = _batches(images, views, loader, training, seed, len(routes), self.accelerator.device)
        self.cost = encoder.cost_model(image_size) if cost is None else cost
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.lengths = Lengths(training, self.steps_per_epoch)
        self.total_steps = self.lengths.total_steps
        self._costs = {image_size: self.cost}
        for size in set(self.view_sizes) - {image_size}:
            self._costs[size] = local_cost(encoder, size)
            of_local = [route for route, side in zip(self.routes, self.view_sizes, strict=True) if side == size]
            check_local_budget(self._costs[size], size, of_local, budget.budgets)
        if budget.budgets:
            set_budgets(encoder, budget.budgets, budget.target)
        self.budgets = budget.budgets or (1.0,)
        self.budget = budget_control(budget, self.cost)
        self._watchers: Sequence[Watcher] = ()
        self._checkpoints: CheckpointStore | None = None
        self._looks: Looks | None = None
        self._untold: tuple[Measured, float] | None = None
        self._on_trial = False

        if self.accelerator.num_processes > 1:
            encoder = cast(Encoder, with_global_norms(encoder, self.accelerator.device))
        with self.parts.blamed(lambda: "before the first step"):
            objective.bind(encoder)  # after the conversion, so that a copy of the encoder has the same norms
        self.learner = Learner(
            encoder, objective, distils=training.distillation > 0, gated_gradient=training.gated_gradient
        ).to(self.accelerator.device)
        self.learner.to(memory_format=torch.channels_last)
        bare_optimizer = optimizer(parameter_groups(self.learner))
        check_optimizer(self.parts, bare_optimizer, self.learner)
        self.contract = Contract(self.parts, self.learner, self.cost, self.view_sizes, self.routes)
        for group in bare_optimizer.param_groups:
            group["peak_lr"] = group["lr"]
        if training.compile and self.accelerator.device.type == "cuda" and self.accelerator.num_processes == 1:
            fuse(bare_optimizer)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.learner, bare_optimizer)
        self._forward: Callable[..., LearnerOutput] = self.wrapped
        self.step = 0
        self._saved_step, self._last_save = -1, time.monotonic()
        on_gpu, scaled = self.accelerator.device.type == "cuda", self.accelerator.scaler is not None
        self._checks_late = on_gpu and not scaled and training.on_not_finite == "stop"
        tell = partial(self._tell, "on_message")
        self.numerics = NumericsWatch(training, tell, self._newest_resume_point, self._part_of_term)

    def fit(
        self,
        *,
        watchers: Sequence[Watcher] = (),
        checkpoints: CheckpointStore | None = None,
        looks: Looks | None = None,
    ) -> None:
        """Train to the end, from the newest resume point if there is one.

        SIGTERM and SIGINT (Ctrl-C) end the training after the step that is being taken, which is saved first. In a launch
        of several processes all stop at the same step, whichever of them was signalled. A second signal stops at once.

        Args:
            watchers: Told of what happens, in the main process only.
            checkpoints: Where resume points are found and written; without it none are.
            looks: What looks at the encoder between steps, in all processes. Its values become part of the step's metrics.

        Raises:
            RunError: If the loss is no longer finite, or a resume point cannot be written.
            Stopped: If a signal asked for it.
        """
        self._watchers, self._checkpoints, self._looks, self._untold = watchers, checkpoints, looks, None
        blamed = self.parts.blamed(lambda: f"step {self.step + 1}")
        # One process answers for the whole launch.
        answer = answered_in_words(saving=checkpoints is not None) if self.accelerator.is_main_process else None
        kept = kept_memory(self.accelerator.device)
        with StopSignals(answer) as stop, blamed, worker_failures(), peer_failures(), kept:
            self._restore()
            self._tell("on_batch_size", self.training.batch_size)
            if change := self.lengths.change_at(self.step):
                self._tell("on_message", change)
            self._tell("on_start", self.step, self.total_steps)
            if self.training.compile:
                self._compile()
            try:
                self._run(stop)
                self._agree_on_buffers()
            finally:
                self._tell("on_end")

    def take_trial_step(self, views: BatchViews) -> None:
        """Take a step on views that are not the run's, to see what a step takes. The run must not go on from there.

        Its views take the routes of the config, also where the first steps of the run are dense.

        Args:
            views: One tensor (N, 3, S, S) for each route, with the view's side S, on the device that trains.
        """
        self._on_trial = True
        self._take_step([views], measure=False)
        self.step += 1

    def _compile(self) -> None:
        """Let the forward pass be compiled. Several processes exchange what they compute inside it, and run it as it is."""
        if self.accelerator.num_processes > 1:
            self._tell("on_message", "training.compile is for one process: this launch trains uncompiled")
            return
        graphs = self.accelerator.device.type == "cuda" and self.training.accumulation == 1
        self._forward = CompiledForward(self.wrapped, graphs, partial(self._tell, "on_message"))
        self._tell("on_message", "torch compiles the network in the second step, which may take minutes")

    @contextmanager
    def _compiling(self, routes: Sequence[Route]) -> Iterator[bool]:
        """Tell watchers if the step in here is compiled first, which takes far longer. Gives whether it is."""
        forward = self._forward
        compiles = isinstance(forward, CompiledForward) and not self.contract.is_watching and forward.compiles_for(routes)
        with phase(self._watchers, COMPILING) if compiles else nullcontext():
            yield compiles

    def _run(self, stop: StopSignals) -> None:
        watch, begun_at = Stopwatch(), self.step
        # Closing the generator ends the processes that prepare images, whatever ends the run.
        with closing(self._micro_batches()) as batches:
            while self.step < self.total_steps:
                last = self.step + 1 == self.total_steps
                looked = self._looks is not None and (last or (self.step + 1) % self._looks.every == 0)
                due = last or looked or (self.step + 1) % self.training.log_every == 0
                with phase(self._watchers, "preparing the first batch") if self.step == begun_at else nullcontext():
                    micro_batches = [next(batches) for _ in range(self.training.accumulation)]
                if self.step == begun_at:
                    batch_size = self._batch_size(micro_batches)
                routes = self._routes(self._budget())
                with (
                    self.contract.watched(self.step + 1, routes, micro_batches[0][0]),
                    self._compiling(routes) as compiling,
                ):
                    measured = self._take_step(micro_batches, due)
                self.step += 1
                self._tell_measured()
                if compiling:
                    watch.rate(self.step)  # says nothing of the speed of other steps
                epoch_ends = self.step % self.steps_per_epoch == 0
                if measured:
                    self._untold = measured, watch.rate(self.step) * batch_size
                    if looked or epoch_ends or not self._checks_late:
                        self._tell_measured(looked)
                self._tell("on_step_end", self.step)
                if epoch_ends:
                    self._tell("on_epoch_end", self.step // self.steps_per_epoch)
                if epoch_ends or self._checkpoint_due():
                    self._save()
                if asked := stop.agreed(self.accelerator.device):
                    self._stop(asked)
        self._tell_measured()

    def _batch_size(self, micro_batches: Sequence[BatchViews]) -> int:
        """How many images a step takes, in all processes. Watchers are told if a loader of the caller's decides it."""
        size = world_size() * sum(len(views[0]) for views in micro_batches)
        if size != self.training.batch_size:
            self._tell("on_batch_size", size)
        return size

    def _tell_measured(self, looked: bool = False) -> None:
        """Tell watchers what a step measured, if they have not been told.

        On a GPU they are told after the next step, or before the run saves or ends: the GPU then never waits until its
        numbers are read.

        Args:
            looked: Whether that step's look at the encoder is due.
        """
        if self._untold is None:
            return
        (measured, speed), self._untold = self._untold, None
        values = self._values(measured) | (self._look() if looked else {})
        epoch = (measured.step - 1) // self.steps_per_epoch + 1
        self._tell("on_step", StepMetrics(measured.step, self.total_steps, epoch, values, speed))

    def _look(self) -> dict[str, float]:
        """What a look finds. It leaves the encoder, its mode and all random states as they are."""
        encoder = self.learner.encoder
        if self._looks is None:
            return {}
        self.numerics.check_late()
        looking = phase(self._watchers, "looking at what is learned")
        with looking, kept_random_states(), evaluation_mode(encoder), torch.no_grad():
            try:
                return dict(self._looks.look(encoder, self.step))
            except SslDcError as error:  # a training does not end because nobody could look
                self._tell("on_message", f"step {self.step} was not looked at: {error}")
                return {}

    def _checkpoint_due(self) -> bool:
        every, minutes = self.training.checkpoint_every, self.training.checkpoint_minutes
        by_steps = every is not None and self.step % every == 0
        return by_steps or (minutes is not None and time.monotonic() - self._last_save >= 60 * minutes)

    def _stop(self, asked: int) -> None:
        """Save the step that was just taken, and end the run."""
        if self._saved_step != self.step:
            self._save()
        self.accelerator.wait_for_everyone()  # a launcher ends the other processes as soon as one has ended
        saved = "saved" if self._checkpoints else "not saved: there is no place for resume points"
        raise Stopped(
            f"stopped by {signal.Signals(asked).name} after step {self.step} of {self.total_steps}, which is {saved}", asked
        )

    def _take_step(self, micro_batches: Sequence[BatchViews], measure: bool) -> Measured | None:
        """Take one optimiser step.

        A step that is not finite changes nothing, where the config lets the run go on, and measures nothing.
        """
        seed_everything(self.seed, _STEP, self.step, rank())
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.lengths.share(self.step)
        budget = self._budget()
        routes = self._routes(budget)
        self.learner.train()
        before = self._buffers() if self.training.on_not_finite == "skip" else {}
        losses = []
        forward = self.wrapped if self.contract.is_watching else self._forward  # its hooks are not to be compiled
        for number, views in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                output = forward(views, routes)
                terms = self._terms(output, routes, budget)
                loss = sum(terms.values(), start=torch.zeros((), device=self.accelerator.device))
                losses.append((loss, terms))
                self.accelerator.backward(loss / len(micro_batches))
        self.contract.check_gradients()
        if not self._is_finite(losses):
            self.optimizer.zero_grad()
            self.learner.load_state_dict(before, strict=False)
            return None
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.learner.objective.after_step(self.learner.encoder, self.lengths.progress(self.step, self.step + 1))
        if any(route.gated for route in routes):
            measured = micro_batches[-1][self._measured_view(routes)]
            self.budget.after_step(self.learner.encoder, measured, self.step, budget)
        return self._measured(output, terms, loss, routes, budget) if measure else None

    def _terms(self, output: LearnerOutput, routes: Sequence[Route], budget: float) -> dict[str, Tensor]:
        """The weighted loss terms: the objective's, distillation, and the gating scheme's, a mean over the gated views."""
        weights = self.learner.objective.weights
        terms = {name: weights[name] * value for name, value in output.objective.terms.items()}
        if output.distilled:
            terms[TERM] = self.training.distillation * distillation(output.distilled)
        traces = self._traces(output, routes)
        for trace in traces:
            losses = self.gating.losses(trace, budget, self.lengths.progress(self.step, self.step))
            self.contract.check_losses(losses)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0) + value / len(traces)
        return terms

    def _traces(self, output: LearnerOutput, routes: Sequence[Route]) -> list[Trace]:
        """The masks of each gated view, over the global batch, and what the network costs at the size of the view."""
        views = zip(output.masks, routes, self.view_sizes, strict=True)
        gated = [(masks, self._costs[size]) for masks, route, size in views if route.gated]
        gathered = iter(gather_batches([mask for masks, _ in gated for mask in masks.values()]))
        return [Trace({site: next(gathered) for site in masks}, cost) for masks, cost in gated]

    def _measured_view(self, routes: Sequence[Route]) -> int:
        """The view that the budget is measured on: the first gated one that is global, or else the first one.

        Evaluation sees images of the size of global views, so local ones are not measured on.
        """
        sizes = enumerate(zip(routes, self.view_sizes, strict=True))
        return next((number for number, (route, size) in sizes if route.gated and size == self.view_sizes[0]), 0)

    def _budget(self) -> float:
        """The budget of the step's gated views: drawn, where the network is trained for several."""
        if len(self.budgets) == 1:
            return self.budgets[0]
        return float(np.random.default_rng((self.seed, _BUDGET, self.step)).choice(self.budgets))

    def _routes(self, budget: float) -> tuple[Route, ...]:
        """The route of each view in this step, at the step's budget where several are trained for."""
        drawn_dense = np.random.default_rng((self.seed, _DENSE, self.step)).random() < self.training.dense_share
        warms_up = self.step < self.training.gate_warmup * self.steps_per_epoch
        if (drawn_dense or warms_up) and not self._on_trial:
            return (Route.DENSE,) * len(self.routes)
        if len(self.budgets) == 1:
            return self.routes
        return tuple(Route.at(budget) if route == Route.GATED else route for route in self.routes)

    def _measured(
        self, output: LearnerOutput, terms: Mapping[str, Tensor], loss: Tensor, routes: Sequence[Route], budget: float
    ) -> Measured:
        return Measured(
            step=self.step + 1,
            budget=budget,
            numbers={
                "loss": loss,
                "lr": self.optimizer.param_groups[0]["lr"],
                **{f"terms/{name}": value for name, value in terms.items()},
            },
            control=self.budget.readings(),
            embedding=gather_batch(output.objective.embeddings[0].detach()),
            traces=self._traces(output, routes),
            late=self._checks_late,
        )

    def _values(self, measured: Measured) -> dict[str, float]:
        """The metrics of a step, which are looked through for trouble first."""
        self.numerics.check_late()
        values = measured.values()
        self.numerics.embedding(measured.step, values["embedding_std"], measured.embedding_size())
        if opened := measured.openness():
            self.numerics.gates(measured.step, *opened, measured.budget)
        return values

    def _is_finite(self, losses: Sequence[StepLoss]) -> bool:
        """Whether the step may be taken, by its losses and gradients.

        On a GPU, these are known only when the GPU has done the whole step. A run that ends at a loss that is not finite
        checks them a step later, or before it saves, so that the GPU always has work. Under fp16 the scaler of the loss
        decides about the gradients, and only its scale is checked.
        """
        number = self.step + 1
        if self._checks_late:
            self.numerics.check_late()
            self.numerics.later(number, losses, self.learner.named_parameters())
            return True
        if not all(self.numerics.loss(number, *each) for each in losses):
            return False
        if self.accelerator.scaler is None:
            return self.numerics.gradient(number, self.learner.named_parameters())
        self.numerics.loss_scale(number, self.accelerator.scaler.get_scale())
        return True

    def _buffers(self) -> dict[str, Tensor]:
        """Copies of the buffers, which a forward pass changes: batch statistics."""
        return {name: buffer.clone() for name, buffer in self.learner.named_buffers()}

    def _part_of_term(self, term: str) -> str:
        if term == TERM:
            return "training.distillation"
        return self.parts.name("objective" if term in self.learner.objective.weights else "gating")

    def _newest_resume_point(self) -> Path | None:
        return self._checkpoints.newest() if self._checkpoints else None

    def _micro_batches(self) -> Generator[BatchViews, None, None]:
        """The micro-batches of the rest of the run, on the device that trains."""
        self.batches.prepare()
        self.contract.check_drawn(self.batches, self.step + 1)
        for number, views in enumerate(self.batches.rest(self.step)):
            if number == 0:
                self.contract.check_batch(views)
            moved: list[Tensor] = send_to_device(views, self.accelerator.device)
            yield [view.contiguous(memory_format=torch.channels_last) for view in moved]

    def _save(self) -> None:
        self.numerics.check_late()  # a resume point holds no step that is not finite
        self._tell_measured()
        self._saved_step, self._last_save = self.step, time.monotonic()
        if self._checkpoints is None or not self.accelerator.is_main_process:
            return
        values: dict[str, Any] = {"budget": self.budget.state()}
        if self.accelerator.scaler is not None:
            values["scaler"] = self.accelerator.scaler.state_dict()
        tensors = {"learner": self.learner.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
        self._checkpoints.save(Checkpoint(self.step, tensors, values))
        self._tell("on_checkpoint", self.step)

    def _restore(self) -> None:
        checkpoint, problems = self._checkpoints.latest() if self._checkpoints else (None, [])
        for problem in problems:
            self._tell("on_message", f"resume point left out: {problem}")
        if checkpoint is None:
            if problems:
                self._tell("on_message", "no resume point is whole: training begins anew")
            return
        try:
            self._take_up(checkpoint)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, RunError) as error:
            raise RunError(f"the resume point of step {checkpoint.step} is not one of this run: {error}") from error

    def _take_up(self, checkpoint: Checkpoint) -> None:
        """Continue from a resume point."""
        fill(self.learner, checkpoint.tensors["learner"], "it")
        restore_optimizer(self.optimizer, checkpoint.tensors["optimizer"])
        self.budget.restore(checkpoint.values["budget"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.values["scaler"])
        self.step = self._saved_step = checkpoint.step

    def _agree_on_buffers(self) -> None:
        """Give every process the batch statistics of the main one, which are saved. A step may have set them apart."""
        if world_size() > 1:
            for buffer in self.learner.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _tell(self, event: str, *about: Any) -> None:
        """In the main process, tell every watcher of an event: the name of a method of :class:`Watcher`."""
        for watcher in self._watchers if self.accelerator.is_main_process else ():
            getattr(watcher, event)(*about)


def _batches(
    images: ImageSet | None,
    views: Views | None,
    loader: Loader | None,
    training: TrainingConfig,
    seed: int,
    count: int,
    device: torch.device,
) -> Batches:
    if loader is not None and images is None and views is None:
        return LoaderBatches(loader, training, count)
    if loader is None and images is not None and isinstance(views, BatchedViews):
        return DeviceBatches(images, views, count, training, seed, device)
    if loader is None and images is not None and views is not None:
        return ViewBatches(images, views, training, seed, count)
    raise ConfigError("a trainer takes either images and views, or a loader")


def _view_sizes(
    views: Views | None, of_loader: Sequence[int] | None, image_size: int, routes: Sequence[Route]
) -> tuple[int, ...]:
    """The side of each view, in pixels."""
    if views is None:
        sizes = tuple(of_loader or (image_size,) * len(routes))
        if len(sizes) != len(routes) or sizes[0] != image_size or list(sizes) != sorted(sizes, reverse=True):
            raise ConfigError(
                f"view_sizes {', '.join(map(str, sizes))}: expected a size for each of {len(routes)} routes, of which the"
                f" first is image_size, {image_size}, and none is larger than the one before"
            )
        return sizes
    check_local_views(views, image_size, routes)
    return views.sizes(image_size, len(routes))


def parameter_groups(learner: nn.Module) -> list[ParameterGroup]:
    """The trainable parameters in two groups. Those of gates have no weight decay (method section 1)."""
    of_gates = {id(p) for gate in gates_of(learner) for p in gate.parameters()}
    trainable = [p for p in learner.parameters() if p.requires_grad]
    groups = [
        ParameterGroup([p for p in trainable if id(p) not in of_gates], decay=True),
        ParameterGroup([p for p in trainable if id(p) in of_gates], decay=False),
    ]
    return [group for group in groups if group.parameters]
