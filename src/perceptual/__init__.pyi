# The public names of `perceptual`, for type checkers and for lazy_loader, which imports each on first use.
from .apply import Model as Model
from .apply import Stylizer as Stylizer
from .apply import Upscaler as Upscaler
from .config import (
    LossConfig as LossConfig,
)
from .config import (
    ModelOptions as ModelOptions,
)
from .config import (
    NetworkConfig as NetworkConfig,
)
from .config import (
    OptimizeConfig as OptimizeConfig,
)
from .config import (
    PaintOptions as PaintOptions,
)
from .config import (
    StyleRecipe as StyleRecipe,
)
from .config import (
    TrainConfig as TrainConfig,
)
from .config import (
    UpscaleOptions as UpscaleOptions,
)
from .config import (
    UpscaleRecipe as UpscaleRecipe,
)
from .errors import PerceptualError as PerceptualError
from .events import Step as Step
from .functional import (
    absolute_distance as absolute_distance,
)
from .functional import (
    feature_distance as feature_distance,
)
from .functional import (
    gram_distance as gram_distance,
)
from .functional import (
    gram_matrix as gram_matrix,
)
from .functional import (
    grid_energy as grid_energy,
)
from .functional import (
    luma as luma,
)
from .functional import (
    normalised_distance as normalised_distance,
)
from .functional import (
    pixel_distance as pixel_distance,
)
from .functional import (
    total_variation as total_variation,
)
from .losses import (
    AbsoluteLoss as AbsoluteLoss,
)
from .losses import (
    DistanceLoss as DistanceLoss,
)
from .losses import (
    FeatureLoss as FeatureLoss,
)
from .losses import (
    GridLoss as GridLoss,
)
from .losses import (
    LossNetwork as LossNetwork,
)
from .losses import (
    LossNetworks as LossNetworks,
)
from .losses import (
    PerceptualLoss as PerceptualLoss,
)
from .losses import (
    PixelLoss as PixelLoss,
)
from .losses import (
    StyleLoss as StyleLoss,
)
from .losses import (
    TemporalLoss as TemporalLoss,
)
from .losses import (
    TextureLoss as TextureLoss,
)
from .losses import (
    TotalVariation as TotalVariation,
)
from .losses import (
    reconstruction_loss as reconstruction_loss,
)
from .losses import (
    style_transfer_loss as style_transfer_loss,
)
from .measure.metrics import (
    PerceptualDistance as PerceptualDistance,
)
from .measure.metrics import (
    psnr as psnr,
)
from .measure.metrics import (
    ssim as ssim,
)
from .measure.metrics import (
    temporal_error as temporal_error,
)
from .measure.metrics import (
    y_channel as y_channel,
)
from .networks import TransformationNetwork as TransformationNetwork
from .optimize import (
    Optimization as Optimization,
)
from .optimize import (
    invert as invert,
)
from .optimize import (
    optimize_style as optimize_style,
)
from .optimize import (
    texture as texture,
)
from .resampling import degrade as degrade
from .resampling import imresize as imresize
from .resampling import modcrop as modcrop
