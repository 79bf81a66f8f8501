"""A package of parts that are sound, and of parts with a planted fault each, which the tests install."""

from ssl_dc import Part, hookimpl

SOUND = {
    "objective": ("Contrastive", "MomentumTeacher", "TargetOnly", "Dropping", "OfAnyViews"),
    "gating": ("TopK", "Thresholded", "Ruled"),
    "encoder": ("Plain",),
    "backbone": ("Blocks", "WithoutSites", "OneRoute"),
    "norm": ("PerRoute",),
    "data": ("Colours", "Unlabelled"),
    "views": ("Resized",),
    "optimizer": ("Momentum",),
    "tracker": ("Lines",),
    "protocol": ("Lengths",),
    "command": ("Hello",),
    "watcher": ("Counts",),
}
"""Parts that pass every check that applies: their classes, in the module of their kind."""

FAULTY = {
    "objective": (
        "MisnamedTerm",
        "TermOfEachImage",
        "TermsInBf16",
        "OneEmbedding",
        "UnusedHead",
        "DetachedView",
        "KeepsTheEncoder",
        "MovesTheEncoder",
        "QueueNotSaved",
        "StatisticsOfOneProcess",
        "BreaksTheGraph",
        "SaysAnyViews",
        "ExtraAllowed",
        "Undescribed",
        "WrongName",
        "RequiredOption",
        "ImportsTorch",
        "ChangesOnReading",
        "LeftOutOfTheFile",
        "LongSummary",
    ),
    "gating": (
        "SoftMasks",
        "FirstThresholdsForAll",
        "OneMaskForAllChannels",
        "MasksInFloat32",
        "SampledInEvaluation",
        "BatchInEvaluation",
        "HardMasks",
        "HalfTheCost",
        "RuleWithoutThreshold",
        "UpsideDownThreshold",
        "OpensAboveBudget",
        "DetachedLoss",
        "NeitherLossNorThreshold",
        "SaysItHasNoGates",
        "SameGateTwice",
        "IgnoresTheThreshold",
        "AlwaysShut",
        "OneEntryTooMany",
    ),
    "encoder": ("AlwaysGated", "NotRegistered", "WideFeatures", "CostOfTheOther"),
    "backbone": (
        "WrongWidth",
        "DetachedMask",
        "OwnBatchNorm",
        "AlwaysTheDenseNorm",
        "SavesTheShortcut",
        "MeanMask",
        "UncountedConvolution",
        "UnknownLayer",
        "MasksOnlyTheHidden",
        "BatchStatistics",
    ),
    "norm": ("SwappedRoutes", "IsABatchNorm", "OneLayerForAll"),
    "data": ("GreyImages", "LabelsFromOne", "NewNoiseEachTime", "TestIsTrain", "CrashesWithoutFolder"),
    "views": ("NumpyDraws", "NotNormalised", "CannotBePickled", "InDouble", "DrawsOnTheImage"),
    "optimizer": ("CountsInPython", "DecaysGates", "ForgetsBiases", "OwnRate", "ClimbsUp"),
    "tracker": ("WritesTheMetrics", "NeedsANewFolder"),
    "protocol": ("TensorInJson", "RaggedTable", "NewNumbersEachTime", "LeavesTrainingMode", "CrashesWithoutGates"),
    "command": ("PlainFunction",),
    "watcher": ("ChangesMetrics", "TakesNoEpochs"),
}
"""Parts that break one promise each."""


def name_of(class_name: str) -> str:
    """The name under which a class is registered."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in class_name).lstrip("_")


def options_module(class_name: str) -> str:
    return "heavy" if class_name == "ImportsTorch" else "options"


def parts(kind: str) -> list[Part]:
    return [
        Part(
            name=name_of(class_name),
            target=f"strangers.{kind}:{class_name}",
            options=None if kind in ("command", "watcher") else f"strangers.{options_module(class_name)}:{class_name}",
            summary="No full stop" if class_name == "LongSummary" else "For a test of the conformance kit.",
        )
        for class_name in (*SOUND[kind], *FAULTY[kind])
    ]


@hookimpl
def ssl_dc_objectives() -> list[Part]:
    return parts("objective")


@hookimpl
def ssl_dc_gatings() -> list[Part]:
    return parts("gating")


@hookimpl
def ssl_dc_encoders() -> list[Part]:
    return parts("encoder")


@hookimpl
def ssl_dc_backbones() -> list[Part]:
    return parts("backbone")


@hookimpl
def ssl_dc_norms() -> list[Part]:
    return parts("norm")


@hookimpl
def ssl_dc_data() -> list[Part]:
    return parts("data")


@hookimpl
def ssl_dc_views() -> list[Part]:
    return parts("views")


@hookimpl
def ssl_dc_optimizers() -> list[Part]:
    return parts("optimizer")


@hookimpl
def ssl_dc_trackers() -> list[Part]:
    return parts("tracker")


@hookimpl
def ssl_dc_protocols() -> list[Part]:
    return parts("protocol")


@hookimpl
def ssl_dc_commands() -> list[Part]:
    return parts("command")


@hookimpl
def ssl_dc_watchers() -> list[Part]:
    return parts("watcher")
