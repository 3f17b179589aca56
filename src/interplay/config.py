"""Every command's config: frozen, typed, and the same thing as a TOML file and as flags; field docstrings are the help.

    interplay train user --config recipe.toml --learning-rate 1e-3

Flags win over the file. Nested tables are dotted flags: `[sampling] temperature = 0.7` is `--sampling.temperature 0.7`.
Environment variables are not read here, so a variable that happens to be called USER or DATA changes nothing.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from interplay.errors import ConfigError
from interplay.store import first_problem

ConfigT = TypeVar("ConfigT", bound="Config")


def _without_secrets(spec: str) -> str:
    for url in spec.partition("#")[0].split(","):
        if "://" in url and ("@" in url or "?" in url):
            # Not repeated here, and nothing is written or printed of a config that holds it.
            raise ConfigError(
                "a URL holds a user name, a password or a query; write http(s)://HOST[:PORT][/PATH]#MODEL, "
                "and put the key into the environment variable OPENAI_API_KEY"
            )
    return spec


AgentSpec = Annotated[str, AfterValidator(_without_secrets)]
"""Who speaks: a trained model's path, "agenda", URL#MODEL, service:URL, ...: see docs/agents.md."""

KvCache = Literal["model", "bfloat16"]
"""The type in which a model in this process keeps keys and values: the one it computes in, or bfloat16."""


class Section(BaseModel):
    """A nested table of a config."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Config(BaseSettings):
    """Base of every command's config."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        cli_parse_args=False,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_enforce_required=False,
    )

    config: Path | None = Field(default=None, exclude=True)
    """A TOML file with any of these fields; flags win over it."""
    dry_run: bool = Field(default=False, exclude=True)
    """Print the resolved config and stop."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: no environment, no files that nobody named."""
        return (init_settings,)

    positional: ClassVar[str | None] = None
    """The field that the first words of the command line fill."""

    def record(self) -> dict[str, Any]:
        """What a Run keeps of the config and a resume must match: every field but those about this one invocation."""
        return self.model_dump(mode="json", exclude={"resume", "overwrite", "out"})


class Sampling(Section):
    """How the next token is drawn."""

    temperature: float = Field(default=0.8, ge=0)
    """Logits are divided by it; 0 takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens that together reach this probability are drawn from."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Only tokens at least this likely, relative to the likeliest, are drawn from."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from the logit of every token that the turn already contains."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtracted from a token's logit once per time that the turn already contains it."""
    max_new_tokens: int = Field(default=160, ge=1)
    """Tokens after which a turn is cut off (and then is a format failure)."""


class Output(Config):
    """Where a command writes."""

    out: Path
    """Directory to write; refused when not empty."""
    overwrite: bool = False
    """Replace an earlier output at --out."""


class ResumableOutput(Output):
    """Where a long command writes."""

    resume: bool = False
    """Go on with an interrupted output at --out; refused when the config differs."""


class EngineFlags(Config):
    """How models in this process keep what they have read; see docs/backends.md."""

    memory_gib: float | None = Field(default=None, gt=0)
    """GiB for the key-value caches of a model in this process; by default half of what is free."""
    kv_cache: KvCache = "model"
    """Type of these caches: the one a model computes in, or bfloat16: half of float32's memory, faster on a CPU, not exact."""


class SlotFlags(Config):
    """What a recommender may have beside its backbone; see docs/recommendation.md."""

    knowledge: str | None = None
    """ranker:PATH gives a model candidates each turn; a model trained with candidates takes the ranker of its training."""
    knowledge_form: Literal["view", "titles", "first"] = "view"
    """Show a model the candidates (a trained one: trained so), or let it name nothing else, or only the first of its list."""
    num_candidates: int | None = Field(default=None, ge=1, le=50)
    """Candidates per turn; by default as many as the model was trained with, else 10."""
    match_wishes: int | None = Field(default=None, ge=1)
    """Of this many of the ranker's best, those with most of what the user asked for come first; by default its own order."""
    guidance: str | None = None
    """What a model does each turn: ask:N (N questions, then recommend), or logs:DATA (as the recommenders there did)."""
    strategy: str | None = None
    """How one trained with --cues strategy speaks: a strategy, random (any of the ten), or logs:DATA (as people did there)."""

    @property
    def is_set(self) -> bool:
        """Whether any slot is asked for."""
        slots = SlotFlags.model_fields.keys() - Config.model_fields.keys()
        return any(getattr(self, name) != SlotFlags.model_fields[name].default for name in slots)


class AgendaTalk(Section):
    """How holistic the agenda-based user talks; all shares are 0 for the plain one. See docs/holistic.md."""

    several: float = Field(default=0.0, ge=0, le=1)
    """Share of wishes told with small talk before them, and of rejections with a question beside them."""
    small_talk: float = Field(default=0.0, ge=0, le=1)
    """Share of conversations that the user begins with small talk."""
    off_topic: float = Field(default=0.0, ge=0, le=1)
    """Share of turns, once a wish is told, in which the user leaves what is due for small talk; it comes back to it."""


class DataConfig(Output):
    """Read a corpus, clean it, label actions, derive scenarios, split it."""

    positional = "corpus"

    corpus: CliPositionalArg[
        Literal[
            "agenda",
            "redial",
            "inspired",
            "opendialkg-movies",
            "opendialkg-books",
            "durecdial-movies",
            "durecdial-music",
            "cpcd",
            "recquest",
            "crs-arena",
            "crs-arena-open",
            "crs-arena-closed",
            "pearl",
            "run",
        ]
    ]
    """Which corpus; "agenda" is made on the spot, "run" is an earlier Run."""
    source: Path | None = None
    """Directory of the corpus files; by default $INTERPLAY_DATA/CORPUS. A Run for "run"; not used by "agenda"."""
    split_by: Literal["target", "user", "worker", "dialogue"] = "target"
    """What must not be shared between the test split and the others."""
    valid_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of conversations for validation."""
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of conversations for testing."""
    whole: bool = False
    """Keep the turns after the accepted item (for rankers); a simulation's conversation ends there."""
    strategies: Path | None = None
    """A classifier (made by evaluate train-strategies) that labels recommenders' strategies where the corpus does not."""
    num_dialogues: int = Field(default=2000, ge=1)
    """How many conversations to make; "agenda" only."""
    num_items: int | None = Field(default=None, ge=100)
    """Movies of the bundled catalog to talk about, drawn by the seed; all by default. "agenda" only."""
    talk: AgendaTalk = AgendaTalk()
    """How holistic the user talks; "agenda" only."""
    annotate_with: AgentSpec | None = None
    """An LLM that writes general preferences and target attributes (URL#MODEL, OpenAI-compatible); by default rules do."""
    seed: int = 0
    """Seed of the splits and of the agenda conversations."""


class TinyConfig(Section):
    """Shape of the tiny backbone."""

    layers: int = Field(default=4, ge=1)
    """Transformer layers."""
    width: int = Field(default=128, ge=32, multiple_of=32)
    """Hidden size; heads have 32 dimensions each, the MLP is three times as wide."""
    vocab_size: int = Field(default=4096, ge=320)
    """Tokens of the tokenizer before the structural tags are added."""
    context: int = Field(default=1024, ge=64)
    """Longest conversation in tokens."""


class LoraSettings(Section):
    """Low-rank adapters, used with --tuning lora or qlora."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the adapters; their output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapters."""


class UserTasks(Section):
    """The mixture that a user simulator is trained on: rows in proportion to the weights; 0 leaves a task out."""

    next_turn: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """The turns of the log, in one row per conversation."""
    flipped: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """One row per turn of the log, and one that ends the conversation with an end token (UserLM)."""
    feedback: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Answer a list of titles: accept if the gold item is listed, else say what is missing."""
    attributes: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """From the history, the attributes of the gold item."""
    target: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """From the history and some titles, the gold item's."""
    num_lists: int = Field(default=4, ge=1, le=20)
    """Lists in a row of the feedback task at most, one after the other; an accept ends the row."""
    num_shown: int = Field(default=3, ge=1, le=20)
    """Titles on a list at most; each list draws its length."""
    num_candidates: int = Field(default=10, ge=2, le=100)
    """Titles to choose from in the target task."""
    gold_shown: float = Field(default=0.5, ge=0, le=1)
    """Share of the lists that hold the gold item."""
    described: float = Field(default=0.25, ge=0, le=1)
    """Share of the lists that tell what the titles are (genres, decade, ...), as recommenders that explain themselves do."""
    from_log: float = Field(default=0.25, ge=0, le=1)
    """Share of the rows of which the list is the log's own with the person's own answer, where one fits the task."""


class TraceSettings(Section):
    """What a recommender that reasons learns to write before each turn; see docs/reasoning.md."""

    list_length: int = Field(default=10, ge=1, le=50)
    """Titles of the ranked list; at most as many as there are candidates."""
    attributes: list[str] = ["genre", "decade", "mood"]
    """Kinds of attributes that are shown beside each candidate."""
    source: AgentSpec = "rules"
    """Who writes the reasoning that is learned: "rules", or the model of URL#MODEL."""
    tries: int = Field(default=3, ge=1)
    """Times that a model is asked for a list that begins with the gold item, before the rules stand in."""
    distractors: float = Field(default=0.0, ge=0, le=1)
    """Share of the candidates, gold items apart, that are replaced by items drawn from the catalog: more to tell apart."""
    outside: Literal["unlearned", "insert"] = "unlearned"
    """Where no gold item is a candidate: do not learn the list, or put the gold item in the place of a candidate."""


class TrainConfig(ResumableOutput):
    """Train a user simulator, a recommender, or a base of both, on conversations."""

    positional = "role"

    role: CliPositionalArg[Literal["user", "recommender", "base"]]
    """Whose words are learned; "base" learns both, each in its own view, and is a model to start the other two from."""
    data: list[Path]
    """Data directories, all of one domain."""
    model: str = "tiny"
    """"tiny" (made on the spot), a path, or a hub id of a base checkpoint."""
    tuning: Literal["full", "lora", "qlora"] = "full"
    """Train all weights, low-rank adapters, or adapters over 4-bit weights."""
    with_persona: bool = False
    """Show the recommender the persona (general preferences and known items) as well as the history."""
    notes: bool = False
    """Note in the user's view which target attributes a recommendation did not name: an aid for models too small to compare."""
    knowledge: str | None = None
    """ranker:PATH shows the recommender candidates before each of its turns (a ranker of the same data directory)."""
    num_candidates: int = Field(default=10, ge=1, le=50)
    """Candidates per turn, with --knowledge."""
    reasoning: bool = False
    """The recommender writes its reasoning and a ranked list of candidates before each turn; with --knowledge."""
    cues: list[str] = []
    """Tell the model how it is going to speak, as the logs did: all, or kinds (verbosity length ...); see docs/control.md."""
    cue_dropout: float = Field(default=0.15, ge=0, lt=1)
    """Share of the conversations without any cue, and of the cues of the others that are left out; with --cues."""
    fit: bool = False
    """Tell the user before each turn whether what is on offer has what it looks for, by the catalog; see docs/training.md."""
    beliefs: bool = False
    """Tell the user before each turn what it holds (wanted or not, how surely), as its persona and past turns say."""
    acts: bool = False
    """Turns tell all of their acts, and not the deciding action alone."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; overrides --epochs."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate (the paper's 2e-4; 3e-3 suits a tiny model from scratch)."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW's decay."""
    batch_size: int = Field(default=1, ge=1)
    """Packed rows of --max-length tokens per device and step."""
    gradient_accumulation: int = Field(default=1, ge=1)
    """Steps whose gradients are summed before the weights move."""
    max_length: int = Field(default=1024, ge=32)
    """Tokens of a packed row, and of a conversation; later turns of a longer conversation are left out and counted."""
    gradient_checkpointing: bool = False
    """Recompute activations: less memory, more time."""
    eval_every: int = Field(default=200, ge=1)
    """Steps between two measurements of the validation loss."""
    save_every: int = Field(default=500, ge=1)
    """Steps between two checkpoints to resume from."""
    seed: int = 0
    """Seed of initial weights and data order."""
    show_masks: int = Field(default=0, ge=0, exclude=True)
    """Print this many coloured conversations (learned words stand out) and stop."""
    tasks: UserTasks = UserTasks()
    trace: TraceSettings = TraceSettings()
    tiny: TinyConfig = TinyConfig()
    lora: LoraSettings = LoraSettings()


MOST_WORDS = 60
"""Most words that a user turn can be asked to have."""


class RewardWeights(Section):
    """What each reward term counts in the weighted sum; 0 leaves a term out. See docs/rewards.md."""

    format: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Answers that can be read; of a policy that reasons, with a full list of distinct titles."""
    recommend: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Place of a hidden target in the list of the turn: 1 / log2(rank + 1)."""
    recommend_gain: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The same less that of the previous list; sums to the last list's, however long the talk."""
    preference: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """F1 of the preferences that the policy infers, against a target's attributes."""
    acceptance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The user accepted something."""
    success: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The user accepted a hidden target."""
    satisfaction: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Share of the user's target attributes that the accepted item has."""
    turned_down: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Minus one for each offer that the user does not accept."""
    turn_cost: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Every turn costs the same; a talk of full length costs 1."""
    catalog_validity: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Share of the titles named that the catalog holds."""
    repetition: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Minus how much a turn repeats itself or an earlier one."""
    sociability: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The turn uses a sociable strategy."""
    realism: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """P(human) of the policy's turns, by a discriminator."""
    goal_alignment: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """A simulated user keeps to profile, policy, objective, requirements and preferences."""


class RewardSpec(Section):
    """Which rewards a policy is optimised for, and how they are paid."""

    weights: RewardWeights = RewardWeights()
    pay: Literal["turn", "end"] = "end"
    """Pay the mean of a term of single turns once, at the last turn, or pay it at each turn (the sum grows with the talk)."""
    list_length: int = Field(default=10, ge=1)
    """Titles that the list of a policy that reasons must have."""
    attribute_kinds: list[str] = []
    """Kinds of a target's attributes that count as its preferences (genre, decade, ...); all by default."""


class ControlFlags(Section):
    """What a user that was trained with cues is told; see docs/control.md."""

    policy: Literal["learned", "none"] = "learned"
    """Draw what nothing here fixes as it was among the people of the training data, or tell nothing else."""
    length: list[int] = []
    """Words of a user turn, 1 to 60; of several numbers each turn draws one (repeat a number to draw it more often)."""
    tolerance: float | None = Field(default=None, ge=0, lt=1)
    """Hold turns to their lengths by decoding: no end below, no further word above, give or take this share; by default not."""
    intent: Literal["greeting", "disclose-goal", "feedback", "accept", "inquire", "chat", "give-up"] | None = None
    """What every turn does; by default the model's own choice, whatever the policy."""
    off_topic: Literal["no", "yes"] | None = None
    """Whether turns are small talk."""
    verbosity: Literal["terse", "medium", "wordy"] | None = None
    """How much the user says throughout; by default, where lengths are given, as their mean is."""
    patience: Literal["quick", "medium", "patient"] | None = None
    """How long until the user accepts or gives up."""
    openness: Literal["particular", "open"] | None = None
    """Whether anything will do."""
    indecision: Literal["decided", "undecided"] | None = None
    """Whether the user knows what it wants."""
    expertise: Literal["none", "some", "many"] | None = None
    """How many items and names it knows."""

    @field_validator("length")
    @classmethod
    def _are_told(cls, length: list[int]) -> list[int]:
        if any(not 1 <= words <= MOST_WORDS for words in length):
            raise ValueError(f"a user turn has 1 to {MOST_WORDS} words")
        return length

    @property
    def is_set(self) -> bool:
        """Whether anything is fixed."""
        return bool(self.fixed or self.length or self.tolerance is not None)

    @property
    def fixed(self) -> dict[str, str]:
        """The kinds of cues that are fixed to one value."""
        values = self.model_dump(exclude={"policy", "length", "tolerance"}, exclude_none=True)
        return {kind.replace("_", "-"): value for kind, value in values.items()}


class SimulationFlags(ResumableOutput, SlotFlags, EngineFlags):
    """How conversations are held, whoever holds them."""

    split: Literal["train", "valid", "test"] = "test"
    """Which scenarios of the data directory are played."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Scenarios to play, from the front; all by default."""
    num_samples: int = Field(default=1, ge=1)
    """Conversations per scenario."""
    first: Literal["recommender", "user"] = "recommender"
    """Who opens: people wait for a person, and speak first to a system."""
    max_turns: int = Field(default=20, ge=2)
    """Turns of both sides after which a conversation ends as turn-limit."""
    max_repeats: int = Field(default=3, ge=2)
    """The same words this often in a row end a conversation as loop."""
    with_persona: bool = False
    """Show a recommender that is no trained model the persona (a trained one sees what it was trained with)."""
    concurrency: int = Field(default=64, ge=1)
    """Conversations under way at once."""
    seed: int = 0
    """Seed of the run; with the scenario and the sample it gives each conversation's own."""
    constrained: bool = True
    """Hold models to the format of a turn and to titles of the catalog; what can't be read all the same is asked for again."""
    exclude_rejected: bool = False
    """A constrained recommender names nothing again that the user has turned down."""
    control: ControlFlags = ControlFlags()
    sampling: Sampling = Sampling()


class SimulateConfig(SimulationFlags):
    """Let a user simulator and a recommender talk on scenarios."""

    user: AgentSpec
    """A trained user (PATH, vllm:PATH), "agenda", URL#MODEL (a server), or any other of docs/agents.md."""
    recommender: AgentSpec
    """A trained recommender (PATH, vllm:PATH), "agenda", ranker:PATH, URL#MODEL, service:URL: see docs/agents.md."""
    scenarios: Path
    """Data directory whose scenarios are played."""
    vectors: Path | None = Field(default=None, exclude=True)
    """Item vectors of the scenarios' catalog (interplay items train --data) for Match Scores."""


class MonitorLimits(Section):
    """When optimising raises an alarm; docs/honesty.md says why each limit is what it is."""

    window: int = Field(default=5, ge=1)
    """Steps whose mean is compared with the mean of as many at the start."""
    length: float = Field(default=1.5, gt=1)
    """Words per turn of the recommender: this many times as many as at the start, or as few."""
    repetition: float = Field(default=0.15, gt=0)
    """Rise of the share of a turn that repeats itself or an earlier one."""
    title_rate: float = Field(default=0.3, gt=0)
    """Rise or fall of the share of the recommender's turns that name a title."""
    popularity: float = Field(default=0.1, gt=0)
    """Rise or fall of the mean place of what is recommended in the order of popularity, as a share of the catalog."""
    off_catalog: float = Field(default=0.01, ge=0, le=1)
    """Share of the titles named that the catalog does not hold."""
    kl: float = Field(default=0.2, gt=0)
    """KL divergence from the start, nats per token."""
    format_share: float = Field(default=0.8, gt=0, le=1)
    """Share of what is paid that the form of the answers earns."""
    fall: float = Field(default=0.1, gt=0)
    """Fall of a held-out simulator's score from its best, while training's rises."""
    gap: float = Field(default=0.2, gt=0)
    """By how much the training simulator's score may have risen further than a held-out one's."""
    human_loss: float = Field(default=0.2, gt=0, lt=1)
    """Share of the score on the logs of people that may be lost."""
    certainty: float = Field(default=3.0, ge=0)
    """Standard errors that a fall, a gap or a loss must have besides, where the checks tell their intervals."""


class OptimizeConfig(ResumableOutput, SlotFlags):
    """Optimise a trained recommender against user simulators by reinforcement learning; see docs/optimize.md."""

    recommender: Path
    """The checkpoint to start from, made by interplay train recommender (or by an earlier optimize)."""
    users: list[AgentSpec] = Field(min_length=1)
    """User simulators to train against, as simulate takes them; of several, each conversation draws one by its seed."""
    held_out: list[AgentSpec] = []
    """At least two user simulators that are only ever measured with, none of them among --users."""
    data: Path
    """Data directory whose scenarios are played; its logs of people, if any, are measured on too."""
    human: Path | None = None
    """Data directory with the logs of people to measure on; by default --data, as far as people speak there."""
    strategies: Path | None = None
    """A classifier (made by evaluate train-strategies) that the reward sociability asks."""
    realism_dialogues: int = Field(default=200, ge=1)
    """Conversations of people, and of the recommender before the first round, that tell the reward realism what is human."""
    algorithm: Literal["turn", "grpo", "rank", "dpo", "best-of-n"] = "turn"
    """Credit per turn, per conversation, per place of the list (reasoning recommenders), preference pairs, or best samples."""
    steps: int = Field(default=200, ge=1)
    """Rounds: conversations are held, then the weights move."""
    scenarios_per_step: int = Field(default=8, ge=1)
    """Scenarios per round."""
    group_size: int = Field(default=8, ge=2)
    """Conversations per scenario: the group that advantages compare."""
    iterations: int = Field(default=1, ge=1)
    """Times that the weights move on the conversations of one round."""
    micro_batch: int = Field(default=8, ge=1)
    """Conversations that go through the model together in training."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Learning rate after the warm-up (1e-4 suits a tiny model; Rank-GRPO takes 1e-6 for one of billions)."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decay."""
    adam_beta2: float = Field(default=0.99, gt=0, lt=1)
    """AdamW's second beta; Rank-GRPO's .99."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Longer gradients are shortened to this."""
    clip_low: float | None = Field(default=None, ge=0, lt=1)
    """Ratios below 1 less this give no gradient; by default .06 for rank, else .2."""
    clip_high: float | None = Field(default=None, ge=0)
    """Ratios above 1 plus this give none; by default .08 for rank, else .2."""
    kl_weight: float = Field(default=1e-3, ge=0)
    """Weight of the KL divergence from the recommender that was started from; 0 leaves it out, and unmeasured."""
    tokens_per_conversation: int = Field(default=64, ge=1)
    """What the loss of a conversation is divided by, whatever its length: a constant, so that length earns no weight."""
    discount: float = Field(default=1.0, ge=0, le=1)
    """Of later rewards, for turn."""
    num_futures: int = Field(default=0, ge=0)
    """Futures sampled after each turn for a multi-turn-aware reward, for turn; 0 takes what really followed."""
    window: int = Field(default=4, ge=0)
    """Turns of the recommender that a future has at most."""
    dpo_beta: float = Field(default=0.1, gt=0)
    """How closely dpo keeps to the recommender that was started from; the greater, the closer."""
    min_gap: float = Field(default=0.1, ge=0)
    """Least difference of the rewards of a preference pair."""
    num_best: int = Field(default=1, ge=1)
    """Conversations of each group that best-of-n learns from."""
    at_least: float | None = None
    """Least reward of a conversation that best-of-n learns from; by default any."""
    tuning: Literal["full", "lora"] = "full"
    """Train all weights, or low-rank adapters."""
    gradient_checkpointing: bool = False
    """Recompute activations: less memory, more time."""
    split: Literal["train", "valid", "test"] = "train"
    """Scenarios to train on."""
    check_split: Literal["train", "valid", "test"] = "test"
    """Scenarios and logs to measure on."""
    check_every: int = Field(default=20, ge=1)
    """Rounds between two measurements."""
    check_dialogues: int = Field(default=50, ge=1)
    """Scenarios (and logs) of a measurement, from the front."""
    save_every: int = Field(default=20, ge=1)
    """Rounds between two checkpoints to resume from."""
    max_turns: int = Field(default=12, ge=2)
    """Turns of both sides after which a conversation ends as turn-limit."""
    max_repeats: int = Field(default=3, ge=2)
    """The same words this often in a row end a conversation as loop."""
    concurrency: int = Field(default=64, ge=1)
    """Conversations under way at once."""
    memory_gib: float | None = Field(default=None, gt=0)
    """GiB for the key-value caches of a model in this process; by default half of what is free."""
    constrained: bool = True
    """Hold models to the format of a turn and to titles of the catalog, in training and when measuring."""
    exclude_rejected: bool = False
    """A constrained recommender names nothing again that the user has turned down."""
    seed: int = 0
    """Seed of the order of scenarios and of all conversations."""
    sampling: Sampling = Sampling()
    """How the recommender's tokens are drawn; nothing may cut or bend its distribution (top_p 1, no penalties)."""
    user_sampling: Sampling = Sampling()
    """How the tokens of simulators that are models are drawn."""
    noise: float = Field(default=0.0, ge=0, le=1)
    """Rate at which the verdicts of the training simulators are turned round; held-out ones are left as they are."""
    rewards: RewardSpec = RewardSpec()
    monitor: MonitorLimits = MonitorLimits()
    lora: LoraSettings = LoraSettings()


class MatrixConfig(SimulationFlags):
    """Let every user simulator talk to every recommender on the same scenarios."""

    users: list[AgentSpec] = Field(min_length=1)
    """User simulators, as simulate takes them: the rows."""
    recommenders: list[AgentSpec] = Field(min_length=1)
    """Recommenders, as simulate takes them: the columns."""
    data: Path
    """Data directory whose scenarios are played."""


class NoiseConfig(SimulationFlags):
    """Hold the same conversations under several seeds: how far apart do two Runs lie that differ in nothing else?"""

    user: AgentSpec
    """A user simulator, as simulate takes it."""
    recommender: AgentSpec
    """A recommender, as simulate takes it."""
    data: Path
    """Data directory whose scenarios are played."""
    repeats: int = Field(default=5, ge=2)
    """Seeds, from --seed on; with two or three the floor is known badly, and so is high."""


class CounterfactualConfig(SimulationFlags):
    """Does a user simulator accept less and criticise more when the recommender is made worse, as people do?"""

    user: AgentSpec
    """The user simulator to test, as simulate takes it."""
    recommender: AgentSpec
    """A good recommender, as simulate takes it; the bad ones take its turns and change what is recommended."""
    data: Path
    """Data directory whose scenarios are played."""


class CompareConfig(Output):
    """Compare Runs with the first of them on the scenarios they share."""

    positional = "runs"

    runs: CliPositionalArg[list[Path]]
    """The Run to compare with, then one or more others."""
    metrics: list[str] = []
    """Metrics to compare; by default all they share. The fewer, the less Holm's correction takes."""
    noise: Path | None = None
    """What seeds alone do to these agents: a directory made by interplay evaluate noise, on scenarios that include these."""
    seed: int = 0
    """Seed of resamples and permutations."""


class EvaluateConfig(Output, SlotFlags, EngineFlags):
    """Measure an agent against logged conversations."""

    positional = "protocol"

    protocol: CliPositionalArg[Literal["replay", "turns", "recommendation"]]
    """replay: does the user accept the right item; turns: quality of single turns; recommendation: is the gold item named."""
    user: AgentSpec | None = None
    """The user to measure (replay, turns): a trained user, "agenda", URL#MODEL, or any other of docs/agents.md."""
    recommender: AgentSpec | None = None
    """The recommender to measure (turns, recommendation): a trained one, "agenda", URL#MODEL, or others: see docs/agents.md."""
    ranker: Path | None = None
    """The ranker to measure (recommendation), made by interplay items train-ranker; every method it holds is measured."""
    predictions: Path | None = None
    """With --ranker: file to write a JSON line per case to, with the case's id and the ranked item ids."""
    vectors: Path | None = None
    """Item vectors of this data's catalog (interplay items train --data) for Match Scores (recommendation)."""
    data: Path
    """Data directory with the logged conversations."""
    split: Literal["train", "valid", "test"] = "test"
    """Which of them."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Conversations to use, from the front; all by default."""
    shuffle_attributes: bool = False
    """Control for replay: give every user the target attributes of another conversation."""
    controls: bool = False
    """Replay: all controls beside the standard protocol, in one table: see docs/metrics.md."""
    history: Literal["own", "logged"] = "own"
    """Replay: what the user remembers of itself, its own turns or the logged ones."""
    encoder: str | None = None
    """An encoder (path or hub id) for BERTScore in turns; without one it is not measured."""
    concurrency: int = Field(default=64, ge=1)
    """Conversations under way at once."""
    seed: int = 0
    """Seed of sampling and of the bootstrap."""
    constrained: bool = True
    """Hold models to the format of a turn and to titles of the catalog; what can't be read all the same is asked for again."""
    exclude_rejected: bool = False
    """A constrained recommender names nothing again that the user has turned down."""
    sampling: Sampling = Sampling()


class ListsConfig(Output):
    """Measure lists of titles that any recommender gave: new, repeated and all items, with and without filters."""

    positional = "lists"

    lists: CliPositionalArg[Path]
    """A JSON line per case: case ("CONVERSATION:TURN"), titles (best first; null: none was given), gold, mentioned."""
    data: Path
    """Data directory; its catalog says what can be recommended."""
    name: str | None = None
    """What gave the lists, for tables; by default the name of the file."""
    split: str = "test"
    """Which part of the data the cases are of, for tables."""
    seed: int = 0
    """Seed of the intervals."""


class LeakageConfig(Config):
    """Find what gives the target away, in simulated or logged conversations."""

    positional = "dialogues"

    dialogues: CliPositionalArg[Path]
    """A Run, a data directory, or a file with a dialogue per line (with --data)."""
    data: Path | None = None
    """Data directory with the scenarios and the catalog of a file."""
    split: Literal["train", "valid", "test"] | None = None
    """Only the conversations of one split; all by default."""
    told_target: bool = False
    """The user was told its target (a Run says so itself)."""
    ranker: Path | None = None
    """A trained ranker that makes the blind guess in place of the rules."""
    out: Path | None = None
    """Directory for scores.jsonl and leaks.jsonl; without it the scores are only printed."""
    overwrite: bool = False
    """Replace an earlier output at --out."""
    seed: int = 0
    """Seed of the bootstrap."""


class MultiturnConfig(Output):
    """Conversations turn by turn: recall and preference coverage at each turn of the recommender, SRRR, RDL."""

    positional = "runs"

    runs: CliPositionalArg[list[Path]]
    """Runs of simulated conversations, or outputs of interplay optimize (before and after)."""
    num_turns: int = Field(default=5, ge=1)
    """Turns of the recommender that are told apart."""
    seed: int = 0
    """Seed of the intervals."""


class JudgeConfig(ResumableOutput):
    """Let a judge grade conversations by FACE's seven aspects."""

    positional = "source"

    source: CliPositionalArg[Path]
    """A Run, a data directory, or a .jsonl file of conversations of any tool."""
    judge: AgentSpec
    """learned:PATH (made by interplay evaluate train-judge), URL#MODEL, or chat:PATH for a chat model in this process."""
    calibration: Path | None = None
    """What interplay evaluate calibrate-judge wrote for this judge; its agreement with people then stands by the grades."""
    level: Literal["both", "dialogue", "turn"] = "both"
    """What a chat model grades: whole conversations, single recommender turns, or both."""
    split: Literal["train", "valid", "test"] | None = None
    """Of a data directory, which conversations; all by default."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Conversations to judge, from the front; all by default."""
    concurrency: int = Field(default=64, ge=1)
    """Conversations under way at once."""
    seed: int = 0
    """Seed of the questions and of the bootstrap."""


class JudgePairsConfig(ResumableOutput):
    """Let a chat model compare two Runs on the same scenarios by PEARL's six criteria, each pair in both orders."""

    positional = "runs"

    runs: CliPositionalArg[list[Path]]
    """The two Runs (or .jsonl files whose conversations have the same ids)."""
    judge: AgentSpec
    """URL#MODEL, or chat:PATH for a chat model in this process."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Pairs to compare, from the front; all by default."""
    concurrency: int = Field(default=64, ge=1)
    """Pairs under way at once."""
    seed: int = 0
    """Seed of the questions and of the bootstrap."""


class TrainJudgeConfig(Output):
    """Train a judge that needs no model on conversations that people have rated, and measure how well it agrees with them."""

    labels: list[Literal["crs-arena", "aba-redial", "uss-redial"]] = ["crs-arena"]
    """What it learns from. It is measured on the first; further ones only ever stand in the training part."""
    labels_dir: Path | None = None
    """Directory of the corpora; by default $INTERPLAY_DATA."""
    num_folds: int = Field(default=10, ge=2)
    """Parts of the cross-validation that splits by person."""
    seed: int = 0
    """Seed of the parts and of the bootstrap."""


class CalibrateJudgeConfig(ResumableOutput):
    """Measure how a judge's grades agree with people's."""

    judge: AgentSpec
    """learned:PATH, URL#MODEL, or chat:PATH for a chat model in this process."""
    labels: Literal["crs-arena", "aba-redial", "uss-redial"] = "crs-arena"
    """Whose grades. A learned judge is not asked about conversations that it has learned from."""
    labels_dir: Path | None = None
    """Directory of the corpora; by default $INTERPLAY_DATA."""
    level: Literal["both", "dialogue", "turn"] = "both"
    """What a chat model grades: whole conversations, single recommender turns, or both."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Conversations to judge, drawn by the seed; all by default."""
    concurrency: int = Field(default=64, ge=1)
    """Conversations under way at once."""
    seed: int = 0
    """Seed of the questions and of the bootstrap."""


class RealismConfig(Output):
    """Compare simulated users with people: fingerprint, discriminators, diversity, coherence, beside the human ceiling."""

    positional = "runs"

    runs: CliPositionalArg[list[str]]
    """What to judge, each [NAME=]PATH[+PATH...]: Runs, data directories, .jsonl or .json files of dialogues by any tool."""
    human: str
    """Conversations of people, given likewise, or crs_arena (in $INTERPLAY_DATA)."""
    second: str | None = None
    """A second human corpus: what another crowd of real people reaches."""
    training: list[str] = []
    """Data directories that the simulators were trained on (their train split): where turns may be copied from."""
    split: Literal["train", "valid", "test", "all"] = "test"
    """Which conversations of a data directory --human and --second take; other sources are taken whole."""
    encoder: str | None = None
    """An encoder (path or hub id) to fine-tune as a further discriminator."""
    num_examples: int = Field(default=3, ge=0)
    """Most and least human conversations shown of each simulator."""
    seed: int = 0
    """Seed of halves, folds and resamples."""


class TrainStrategiesConfig(Output):
    """Learn INSPIRED's sociable strategies from its labels, and measure by cross-validation how well they are predicted."""

    source: Path | None = None
    """Directory of INSPIRED's files with labels; by default $INTERPLAY_DATA/inspired."""
    num_folds: int = Field(default=5, ge=2)
    """Parts of the cross-validation, drawn by conversation."""
    seed: int = 0
    """Seed of the parts, the random baseline and the intervals."""


class StrategiesConfig(Output):
    """How often a recommender uses each sociable strategy, and how often its user then accepts."""

    positional = "source"

    source: CliPositionalArg[Path]
    """A Run or a data directory."""
    model: Path | None = None
    """A classifier (interplay evaluate train-strategies); without one the labels of the corpus are taken."""
    split: Literal["train", "valid", "test"] | None = None
    """Of a data directory, which conversations; all by default."""
    seed: int = 0
    """Seed of the intervals."""


class HolisticConfig(Output):
    """How often turns do several things at once, and users make small talk, leave the topic and come back."""

    positional = "source"

    source: CliPositionalArg[Path]
    """A Run or a data directory."""
    human: Path | None = None
    """A data directory of people, whose figures stand beside."""
    split: Literal["train", "valid", "test"] | None = None
    """Of a data directory, which conversations; all by default."""
    seed: int = 0
    """Seed of the intervals."""


class LatentsConfig(Output):
    """What kinds of users conversations show, and how well a classifier tells each kind by its words."""

    positional = "source"

    source: CliPositionalArg[Path]
    """A Run or a data directory."""
    labels: Path | None = None
    """What users were meant to be like: latents.jsonl (or its directory) of the data whose scenarios a Run played."""
    split: Literal["train", "valid", "test"] | None = None
    """Of a data directory, which conversations; all by default."""
    seed: int = 0
    """Seed of folds and intervals."""


class SystemRankingConfig(Output):
    """Compare the orders in which simulated users and people put recommenders."""

    positional = "simulated"

    simulated: CliPositionalArg[list[str]]
    """[NAME=]PATH each: a matrix, Runs or dialogues that tell who spoke, a .csv or .json of scores per system; or ievalm."""
    people: str = "crs_arena"
    """crs_arena (people's votes, in $INTERPLAY_DATA), or [NAME=]PATH: a .csv or .json of people's scores per system."""
    judge: str | None = None
    """learned:PATH (interplay evaluate train-judge): rank by its grade of each conversation as well."""
    seed: int = 0
    """Seed of resamples and permutations."""


class GoalsConfig(ResumableOutput):
    """Track the user's goal through conversations: what was kept and done, drift, contradictions, wrongful endings."""

    positional = "source"

    source: CliPositionalArg[Path]
    """A Run or a data directory."""
    judge: AgentSpec | None = None
    """URL#MODEL, or chat:PATH for a chat model in this process, tracks in place of the rules."""
    split: Literal["train", "valid", "test"] | None = None
    """Only the conversations of one split; all by default."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Conversations to track, from the front; all by default."""
    concurrency: int = Field(default=64, ge=1)
    """Conversations that a judge tracks at once."""
    seed: int = 0
    """Seed of a judge's questions and of the bootstrap."""


class PersuasionConfig(ResumableOutput, EngineFlags):
    """Praise items that contradict what a user wants, and count how often it gives way."""

    user: AgentSpec
    """Who is pushed: a trained user, "agenda", URL#MODEL, or any other of docs/agents.md."""
    data: Path
    """Data directory with the scenarios and the catalog that items are offered from."""
    split: Literal["train", "valid", "test"] = "test"
    """Which scenarios."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Scenarios to use, from the front; all by default. Each is played up to three times."""
    concurrency: int = Field(default=64, ge=1)
    """Conversations under way at once."""
    seed: int = 0
    """Seed of items, wording, conversations and the bootstrap."""
    constrained: bool = True
    """Hold models to the format of a turn and to titles of the catalog; what can't be read all the same is asked for again."""
    sampling: Sampling = Sampling()


class TransferTraining(Section):
    """How every recommender of a transfer matrix is trained; see interplay train."""

    model: str = "tiny"
    """"tiny" (made on the spot), a path, or a hub id of a base checkpoint."""
    max_steps: int = Field(default=1000, ge=1)
    """Optimiser steps, the same for all, so that rows differ in what was learned from and not in how long."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear warm-up."""
    max_length: int = Field(default=640, ge=32)
    """Tokens of a packed row."""
    eval_every: int = Field(default=200, ge=1)
    """Steps between two measurements of the validation loss."""
    tiny: TinyConfig = TinyConfig()


class TransferConfig(SimulationFlags):
    """Train recommenders on different conversations and test each on every corpus and with every simulator."""

    trained: dict[str, list[Path]] = {}
    """Rows: a name and the data directories to train on; several are a mixture. In the file: [trained] NAME = ["data/a"]."""
    given: dict[str, AgentSpec] = {}
    """Further rows: a name and a recommender as simulate takes it, trained elsewhere or not at all."""
    tested: list[Path] = []
    """Columns: data directories with conversations of people, whose --split is tested on."""
    users: list[AgentSpec] = []
    """Further columns: user simulators, as simulate takes them."""
    played: Path | None = None
    """Data directory whose scenarios the user simulators play."""
    across_domains: bool = False
    """Test trained recommenders on corpora of other domains as well: titles stand between the tags of the domain they know."""
    training: TransferTraining = TransferTraining()


class ReportConfig(Output):
    """One HTML page, and its tables as CSV and LaTeX, from Runs or from the seeds of an optimisation."""

    positional = "runs"

    runs: CliPositionalArg[list[Path]]
    """Runs, in the order of the columns; or outputs of interplay optimize that differ in their seed alone."""
    table: list[Literal["interplay-1", "interplay-2", "zero-shot-redial"]] = []
    """Tables of papers to fill with the Runs, beside the published figures; printed as Markdown, written as LaTeX and CSV."""
    num_examples: int = Field(default=5, ge=0)
    """Conversations shown per Run."""
    seed: int = 0
    """Seed of which conversations are shown."""


class ChatConfig(SlotFlags):
    """Take either side of a conversation in the terminal."""

    user: AgentSpec | None = None
    """The user to talk to (you recommend): a trained user, "agenda", URL#MODEL, or any other of docs/agents.md."""
    recommender: AgentSpec | None = None
    """The recommender to talk to (you are the user): a trained one, "agenda", URL#MODEL, or any other of docs/agents.md."""
    data: Path
    """Data directory: its catalog, and a test scenario for the simulated user."""
    out: Path | None = None
    """File to append the conversation to, as one JSON line."""
    seed: int = 0
    """Seed of the conversation, and of which scenario is taken."""
    max_turns: int = Field(default=40, ge=2)
    """Turns of both sides after which the conversation ends."""
    constrained: bool = True
    """Hold models to the format of a turn and to titles of the catalog; what can't be read all the same is asked for again."""
    exclude_rejected: bool = False
    """A constrained recommender names nothing again that the user has turned down."""
    sampling: Sampling = Sampling()


class ItemsBuildConfig(Output):
    """Build a catalog from several sources, with duplicates merged."""

    sources: list[str]
    """bundled, movielens:PATH, wikipedia:PATH, redial:PATH, opendialkg:PATH, data:PATH, csv:PATH, jsonl:PATH, parquet:PATH."""
    map: list[str] = []
    """Columns of a csv, jsonl or parquet source, FIELD=COLUMN or FIELD=COLUMN:SEPARATOR: title=Name year=Year genre=Tags:|."""
    domain: Literal["movie", "book", "song", "restaurant", "product"] = "movie"
    """What the items are."""
    year_tolerance: int = Field(default=1, ge=0, le=5)
    """Years by which two sources may differ about one item."""


class ItemsShowConfig(Config):
    """Print what a catalog knows of a title or an id."""

    positional = "title"

    title: CliPositionalArg[str]
    """A title (with or without a year), an id, or SOURCE:ID."""
    catalog: Path
    """A catalog (interplay items build) or a data directory."""
    num: int = Field(default=5, ge=1)
    """Items or suggestions shown at most."""


class ItemsLinkConfig(Config):
    """Find the items of a catalog in a text, and say why each was linked or not."""

    positional = "text"

    text: CliPositionalArg[str]
    """The text; "-" reads one text per line from the standard input and prints one line of JSON for each."""
    catalog: Path
    """A catalog (interplay items build) or a data directory."""
    year_tolerance: int = Field(default=2, ge=0, le=5)
    """Years by which a written year may differ from the item's."""


class ItemsTrainRankerConfig(Output):
    """Learn from logged conversations which items come next."""

    data: Path
    """Data directory; its train split is learned from (interplay data CORPUS --whole --split-by worker)."""
    catalog: Path | None = None
    """A catalog (interplay items build) to look up plots, tags and people in; the items ranked stay those of --data."""
    num_dialogues: int | None = Field(default=None, ge=1)
    """Conversations to learn from, drawn by the seed; all by default. For learning curves."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes of the views over the cases; by default what was tuned."""
    seed: int = 0
    """Seed of first weights, order and folds."""


class ItemsTrainConfig(Output):
    """Learn item vectors from texts and ratings: the embedding of Match Scores."""

    catalog: Path
    """A catalog (interplay items build) whose items are rated; its sources say which ids ratings may use."""
    ratings: str
    """movielens:PATH, csv:PATH, jsonl:PATH or parquet:PATH."""
    map: list[str] = []
    """Columns of a csv, jsonl or parquet table: user=COLUMN item=COLUMN (or title=COLUMN) rating=COLUMN."""
    source: str | None = None
    """Source of the catalog whose ids the ratings use; by default "movielens", or the name of the file."""
    min_rating: float = 0.0
    """Ratings from here on count as liked; by default all do."""
    data: Path | None = None
    """A data directory or catalog whose items get the vectors; by default those of --catalog."""
    encoder: str = "tfidf"
    """tfidf, tinybert, minilm, or the path or hub id of a sentence-transformers model."""
    dim: int = Field(default=64, ge=1)
    """Dimension of the vectors."""
    hidden: int = Field(default=0, ge=0)
    """Width of a hidden layer of the head; 0 makes it linear."""
    text_only: bool = False
    """Rated items get no part of their own: vectors are a function of the text alone."""
    epochs: int = Field(default=20, ge=1)
    """Passes over the ratings."""
    held_out: float = Field(default=0.2, ge=0, lt=1)
    """Share of each user's likes to measure quality on, with a model trained without them; 0 does not measure."""
    seed: int = 0
    """Seed of encoder, first weights, order and split."""


class QuickstartConfig(Output):
    """The whole pipeline on the bundled corpus with tiny models: offline, a few minutes."""

    out: Path = Path("runs/quickstart")
    """Directory to write; an earlier quickstart there is replaced with --overwrite."""
    num_dialogues: int = Field(default=3000, ge=100)
    """Agenda conversations to make."""
    num_conversations: int = Field(default=200, ge=1)
    """Conversations of the two trained models."""
    num_items: int = Field(default=200, ge=100)
    """Movies to talk about: few enough that a tiny model meets each title often."""
    user_steps: int = Field(default=2200, ge=1)
    """Optimiser steps of the user simulator."""
    recommender_steps: int = Field(default=2200, ge=1)
    """Optimiser steps of the recommender."""
    seed: int = 0
    """Seed of everything."""


def parse_config(config_class: type[ConfigT], args: Sequence[str], prog: str) -> ConfigT:
    """A command's config from its flags and the TOML file they name.

    Args:
        config_class: the command's config.
        args: the command line after the command's name.
        prog: the command as typed, for the help.

    Raises:
        ConfigError: an unknown flag or field, a value of the wrong type, a missing field, or a file that is not TOML.
        SystemExit: help was asked for (code 0).
    """
    from_file = _read_toml(_config_path(args)) if _config_path(args) else {}
    _refuse_unknown(config_class, from_file, "")
    words = _spread_lists(config_class, args)
    name = config_class.positional
    if name in from_file and (not words or words[0].startswith("-")):
        # The settings library wants positional arguments on the command line; a file may fill them just as well.
        value = from_file[name]
        words = [*(map(str, value) if isinstance(value, list) else [str(value)]), *words]
    source: CliSettingsSource[Any] = CliSettingsSource(config_class, cli_prog_name=prog, cli_exit_on_error=False)
    try:
        return CliApp.run(config_class, cli_args=words, cli_settings_source=source, **from_file)
    except SettingsError as error:
        raise ConfigError(_flag_problem(str(error), config_class, prog)) from None
    except ValidationError as error:
        raise ConfigError(f"{prog}: {_value_problem(error, _config_path(args))}") from None


def _list_flags(model: type[BaseModel], prefix: str = "--") -> Iterator[str]:
    for name, field in model.model_fields.items():
        flag, inner = f"{prefix}{name.replace('_', '-')}", field.annotation
        if get_origin(inner) is list:
            yield flag
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _list_flags(inner, f"{flag}.")


def _spread_lists(config_class: type[BaseModel], args: Sequence[str]) -> list[str]:
    """`--data a b` as `--data a --data b`, the form the settings library reads."""
    lists = set(_list_flags(config_class))
    out: list[str] = []
    flag: str | None = None
    for arg in args:
        if arg.startswith("-"):
            flag = arg if arg in lists else None
            out.append(arg)
        elif flag is not None and out[-1] != flag:
            out += [flag, arg]
        else:
            out.append(arg)
    return out


def _config_path(args: Sequence[str]) -> str | None:
    for index, arg in enumerate(args):
        if arg == "--config" and index + 1 < len(args):
            return args[index + 1]
        if arg.startswith("--config="):
            return arg.removeprefix("--config=")
    return None


def _read_toml(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: could not be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--config {path}: not TOML ({error})") from None


def _refuse_unknown(model: type[BaseModel], given: dict[str, Any], prefix: str) -> None:
    for name, value in given.items():
        known = model.model_fields
        if name not in known:
            raise ConfigError(
                f"unknown field {prefix}{name} in the TOML file{_suggest(name, known)}; accepted: {', '.join(known)}"
            )
        inner = known[name].annotation
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            _refuse_unknown(inner, value, f"{prefix}{name}.")


def _suggest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _flags(model: type[BaseModel], prefix: str = "--") -> list[str]:
    out = []
    for name, field in model.model_fields.items():
        flag = prefix + name.replace("_", "-")
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            out += _flags(inner, f"{flag}.")
        else:
            out.append(flag)
    return out


def _flag_problem(message: str, config_class: type[Config], prog: str) -> str:
    unknown = re.search(r"unrecognized arguments: (\S+)", message)
    if unknown:
        flag = unknown.group(1).split("=")[0]
        return f"{prog}: unknown flag {flag}{_suggest(flag, _flags(config_class))}; see {prog} --help"
    missing = re.search(r"arguments are required: (\S+)", message)
    if missing and config_class.positional:
        accepted = config_class.model_fields[config_class.positional].annotation
        choices = f"; accepted: {', '.join(get_args(accepted))}" if get_origin(accepted) is Literal else ""
        return f"{prog}: {missing.group(1).strip(',')} is missing{choices}; see {prog} --help"
    text = " ".join(message.removeprefix("error parsing CLI: ").split())
    return f"{prog}: {text}; see {prog} --help"


def _value_problem(error: ValidationError, path: str | None) -> str:
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{name.replace('_', '-')} is missing; pass it as a flag or in a --config file"
    source = f" (a flag or {path})" if path else ""
    return f"{first_problem(error)}{source}"


def to_toml(values: dict[str, Any], prefix: str = "") -> str:
    """The TOML text of a config: what --dry-run prints. None, which TOML lacks, becomes a comment."""
    lines, tables = [], []
    for name, value in values.items():
        if isinstance(value, dict):
            tables.append(f"\n[{prefix}{name}]\n{to_toml(value, f'{prefix}{name}.')}")
        elif value is None:
            lines.append(f"# {name} is not set")
        else:
            lines.append(f"{name} = {_toml_value(value)}")
    return "\n".join(lines + tables)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)
