"""Unlearning: what to forget, ways to forget it, and what a model still knows.

training     networks trained, truly retrained, and many at a time
scenarios    what is to be forgotten
fisher       how much each parameter matters to some data
dampening    forgetting by shrinking what matters to the forget set alone
finetuning   forgetting by more training
noise        images that nothing can be learned from, and the steps that make them
attacks      who was in the training set
evaluation   what is left, against the band of retrained networks
"""

from labkit.data import digits_split
from labkit.unlearning.attacks import (
    auc,
    confidence_scores,
    entropy,
    entropy_attack,
    lira,
    modified_entropy,
    tpr_at_fpr,
    u_lira,
)
from labkit.unlearning.dampening import (
    adaptive_ssd,
    alpha_ceiling,
    alpha_on_retain,
    jit_unlearning,
    loss_free_ssd,
    selective_synaptic_dampening,
    ssd,
)
from labkit.unlearning.evaluation import (
    Band,
    accuracy,
    cka,
    confusion_routing,
    linear_probe,
    logits_of,
    pareto_front,
    penultimate_features,
    recalibrate_batch_norm,
    relearning_curve,
    retrain_band,
    tug_of_war,
    zrf,
)
from labkit.unlearning.finetuning import (
    amnesiac,
    bad_teacher,
    fine_tune,
    gradient_ascent,
    neg_grad_plus,
    random_labels,
    salun,
    scrub,
    unsir,
)
from labkit.unlearning.fisher import (
    batch_fisher_diagonal,
    fisher_diagonal,
    output_sensitivity,
)
from labkit.unlearning.noise import input_gradient, min_min_noise, pgd, project
from labkit.unlearning.scenarios import (
    Scenario,
    class_forgetting,
    confusion,
    memorisation_scores,
    memorised_forgetting,
    poison,
    random_forgetting,
    stamp,
    subclass_forgetting,
    take,
)
from labkit.unlearning.training import (
    Centre,
    Ensemble,
    Recipe,
    digits_cnn,
    digits_mlp,
    retrain,
    small_cnn,
    train,
)

__all__ = [
    "Band",
    "Centre",
    "Ensemble",
    "Recipe",
    "Scenario",
    "accuracy",
    "adaptive_ssd",
    "alpha_ceiling",
    "alpha_on_retain",
    "amnesiac",
    "auc",
    "bad_teacher",
    "batch_fisher_diagonal",
    "cka",
    "class_forgetting",
    "confidence_scores",
    "confusion",
    "confusion_routing",
    "digits_cnn",
    "digits_mlp",
    "digits_split",
    "entropy",
    "entropy_attack",
    "fine_tune",
    "fisher_diagonal",
    "gradient_ascent",
    "input_gradient",
    "jit_unlearning",
    "linear_probe",
    "lira",
    "logits_of",
    "loss_free_ssd",
    "memorisation_scores",
    "memorised_forgetting",
    "min_min_noise",
    "modified_entropy",
    "neg_grad_plus",
    "output_sensitivity",
    "pareto_front",
    "penultimate_features",
    "pgd",
    "poison",
    "project",
    "random_forgetting",
    "random_labels",
    "recalibrate_batch_norm",
    "relearning_curve",
    "retrain",
    "retrain_band",
    "salun",
    "scrub",
    "selective_synaptic_dampening",
    "small_cnn",
    "ssd",
    "stamp",
    "subclass_forgetting",
    "take",
    "tpr_at_fpr",
    "train",
    "tug_of_war",
    "u_lira",
    "unsir",
    "zrf",
]
