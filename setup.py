"""Installation. Lower bounds are what the code needs, upper bounds are open; requirements.lock pins what the tests ran with."""

from setuptools import find_packages, setup

REQUIRES = [
    "jax>=0.10",  # arrays, jit, sharding
    "flax>=0.12",  # Linen layers, in nn/ and models/ only
    "optax>=0.2.8",  # optimisers and schedules
    "orbax-checkpoint>=0.12.8",  # checkpoints, behind train/checkpoint.py alone
    "safetensors>=0.6",  # trained parameters as one file that other frameworks read: arrays, never code; train/export.py alone
    "numpy>=2.0",  # host arrays
    "scipy>=1.14",  # statistics of evaluations, image morphology
    "scikit-learn>=1.6",  # DCI's regressors
    "ml_collections>=1.0",  # ConfigDict of configs/
    "absl-py>=2.1",  # flags of the commands
    "jaxtyping>=0.3",  # shapes in signatures
    "tensorflow-datasets>=4.9.9",  # dataset builders; works without TensorFlow on array_record files
    "array_record>=0.8",  # random access to the records of a built dataset
    "tokenizers>=0.23",  # byte-pair encoding: learning one, and encoding a corpus in seconds
    "importlib_resources>=6.0",  # imported by tensorflow-datasets, which does not declare it
    "matplotlib>=3.9",  # pictures and curves
    "pillow>=11",  # reading the user's images
    "jinja2>=3.1",  # the report page
    "tensorboardX>=2.6",  # TensorBoard events without TensorFlow
    "rich>=13.9",  # progress bar and parameter table
]
EXTRAS = {
    "tpu": ["jax[tpu]>=0.10"],  # libtpu
    "gpu": ["jax[cuda13]>=0.10"],  # CUDA wheels; on older drivers install jax[cuda12] instead
    "table": ["pyarrow>=16"],  # tables of the user's own in Parquet, in data/table.py only
    "sweep": ["optuna>=5.0"],  # samplers, pruners and databases of launch.sweep; grid, random and list need nothing
    "docs": [  # the site, by `make docs`; docs/requirements.txt pins them, apart from the lock: building it imports nothing of the package
        "mkdocs-material>=9.6",  # pages, search and navigation without anything from the network
        "mkdocstrings[python]>=1.0",  # the reference, from docstrings
        "ruff>=0.9",  # sets its signatures
    ],
    "dev": [
        "pytest>=8",  # tests
        "pytest-xdist>=3.6",  # tests on several cores
        "beartype>=0.20",  # checks jaxtyping's shapes under pytest
        "chex>=0.1.88",  # comparing trees in tests
        "hypothesis>=6.100",  # properties over generated graphs and layouts
        "ruff>=0.9",  # style
        "pyright>=1.1.390",  # types
        "pre-commit>=4",  # both, before a commit
    ],
}

setup(
    name="causal-gen",
    version="0.1.0",
    description="Causal generative models in JAX: counterfactuals of images and sequences from one small set of interfaces",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["causal_gen", "causal_gen.*"]),
    package_data={"causal_gen": ["**/*.html", "**/*.css", "**/*.js"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
