from kbopt.library import Evaluator as Evaluator
from kbopt.library import KernelGuide as KernelGuide

__version__: str
