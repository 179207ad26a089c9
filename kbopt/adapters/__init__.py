"""kbopt's evaluator inside other optimizers. Each module needs the package that it is named after."""
