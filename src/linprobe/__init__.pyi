from .activations.features import extract_features as extract_features
from .activations.layers import LayerRow as LayerRow
from .activations.layers import LayerTable as LayerTable
from .activations.layers import layers as layers
from .activations.options import ExtractionOptions as ExtractionOptions
from .activations.taps import Taps as Taps
from .core.certificate import Certificate as Certificate
from .core.certificate import certify as certify
from .core.problem import SoftmaxRegression as SoftmaxRegression
from .core.problem import Standardisation as Standardisation
from .data import load_dataset as load_dataset
from .evaluation.options import EvaluationOptions as EvaluationOptions
from .integrations.keras import KerasNetwork as KerasNetwork
from .integrations.sklearn import CertifiedLogisticRegression as CertifiedLogisticRegression
from .pipeline.fit import fit_probes as fit_probes
from .pipeline.probe import probe as probe
from .pipeline.report import Probe as Probe
from .pipeline.report import ProbeReport as ProbeReport
from .pipeline.report import load_report as load_report
from .probes.holdout import holdout_order as holdout_order
from .probes.holdout import holdout_order_by_group as holdout_order_by_group
from .probes.protocol import FittedProbe as FittedProbe
from .probes.protocol import ProbeConfig as ProbeConfig
from .probes.protocol import fit_probe as fit_probe
from .records.store import load_run as load_run
from .runtime.errors import LinprobeError as LinprobeError

__version__: str
