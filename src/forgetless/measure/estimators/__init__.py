"""What is measured, an estimator a file: an open list.

Every file has a function for users, `(model, data, …) → Importance`, and `estimator(network, **options)`, which says
what is summed over samples. `path_integral` alone is measured along training.
"""

from collections.abc import Callable

from forgetless.measure.accumulator import Estimator
from forgetless.measure.estimators import fisher, local_mas, mas, output_curvature

ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    "mas": mas.estimator,
    "local-mas": local_mas.estimator,
    "fisher": fisher.estimator,
    "output-curvature": output_curvature.estimator,
}
