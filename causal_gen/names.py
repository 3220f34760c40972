"""The names that a config may say, each with the class or function that it stands for; build.py imports that when a config asks for it.

A data source takes a line in `DATA`; a model family one in `MODELS`, one in `EVALUATION`, and one in `SAMPLING` where it is drawn by other
settings than those of a diffusion model. Nothing that is not in these tables can be named.
"""

DATA = {
    "pendulum": "causal_gen.data.pendulum:PendulumConfig",
    "morphomnist": "causal_gen.data.morphomnist:MorphoMNISTConfig",
    "text": "causal_gen.data.text:TextConfig",
    "pixels": "causal_gen.data.pixels:PixelsConfig",
    "copy": "causal_gen.data.sequences:CopyConfig",
    "recall": "causal_gen.data.sequences:RecallConfig",
    "markov": "causal_gen.data.sequences:MarkovConfig",
    "reversal": "causal_gen.data.sequences:ReversalConfig",
    "enumerable": "causal_gen.data.enumerable:EnumerableConfig",
    "grammar": "causal_gen.data.grammar:GrammarConfig",
    "facts": "causal_gen.data.facts:FactsConfig",
    "references": "causal_gen.data.references:ReferencesConfig",
    "triplets": "causal_gen.data.triplets:TripletsConfig",
    "scratchpad": "causal_gen.data.scratchpad:ScratchpadConfig",
    "needles": "causal_gen.data.needles:NeedlesConfig",
    "confounded": "causal_gen.data.confounded:ConfoundedConfig",
    "scm": "causal_gen.data.scm:ScmConfig",
    "table": "causal_gen.data.table:TableConfig",
    "contexts": "causal_gen.data.contexts:ContextsConfig",
    "wired": "causal_gen.data.wired:WiredConfig",
    "tagging": "causal_gen.data.labelled:TaggingConfig",
    "demonstrations": "causal_gen.data.demonstrations:DemonstrationsConfig",
    "pairs": "causal_gen.data.pairs:PairsConfig",
    "video": "causal_gen.data.video:VideoConfig",
    "objects": "causal_gen.data.objects:ObjectsConfig",
    "codec": "causal_gen.data.codec:CodecConfig",
    "programs": "causal_gen.data.programs:ProgramsConfig",
    "sudoku": "causal_gen.data.sudoku:SudokuConfig",
    "arrow": "causal_gen.data.film:ArrowConfig",
    "soundtrack": "causal_gen.data.film:SoundtrackConfig",
}
MODELS = {
    "diffusion_ae": "causal_gen.models.diffusion_ae_config:DiffusionAEConfig",
    "causal_transformer": "causal_gen.models.causal_transformer_config:CausalTransformerConfig",
    "variable_transformer": "causal_gen.models.variable_transformer_config:VariableTransformerConfig",
    "hybrid_transformer": "causal_gen.models.hybrid_transformer_config:HybridTransformerConfig",
    "codebook_transformer": "causal_gen.models.codebook_transformer_config:CodebookTransformerConfig",
    "speculative_pair": "causal_gen.models.speculative_pair_config:SpeculativePairConfig",
    "labeller": "causal_gen.models.labeller_config:LabellerConfig",
    "embedder": "causal_gen.models.embedder_config:EmbedderConfig",
    "structural": "causal_gen.models.structural_config:StructuralConfig",
    "bidirectional": "causal_gen.models.bidirectional_config:BidirectionalConfig",
    "linear_latent": "causal_gen.models.linear_latent_config:LinearLatentConfig",
}
SAMPLING = {  # how a model is drawn from is a matter of its family; the default is the one of SECTIONS
    "causal_transformer": "causal_gen.sampling.truncation:DecodingConfig",
    "codebook_transformer": "causal_gen.sampling.truncation:DecodingConfig",
    "speculative_pair": "causal_gen.sampling.truncation:DecodingConfig",
    "hybrid_transformer": "causal_gen.sampling.unmask_config:UnmaskConfig",
    "labeller": "causal_gen.models.labeller_config:LabelSampling",
}
EVALUATION = {  # what is measured of a family
    "diffusion_ae": "causal_gen.evaluate.axioms:evaluate",
    "causal_transformer": "causal_gen.evaluate.sequences:evaluate",
    "codebook_transformer": "causal_gen.evaluate.codebooks:evaluate",
    "speculative_pair": "causal_gen.evaluate.sequences:evaluate",
    "variable_transformer": "causal_gen.evaluate.variables:evaluate",
    "hybrid_transformer": "causal_gen.evaluate.hybrid:evaluate",
    "labeller": "causal_gen.evaluate.labels:evaluate",
    "embedder": "causal_gen.evaluate.retrieval:evaluate",
    "structural": "causal_gen.evaluate.structural:evaluate",
    "bidirectional": "causal_gen.evaluate.axioms:evaluate",
    "linear_latent": "causal_gen.evaluate.latents:evaluate",
}
SECTIONS = {
    "sampling": "causal_gen.sampling.base:SamplingConfig",
    "train": "causal_gen.train.state:TrainConfig",
    "mesh": "causal_gen.parallel.mesh:MeshConfig",
    "checkpoint": "causal_gen.train.checkpoint:CheckpointConfig",
    "log": "causal_gen.train.log:LogConfig",
    "evaluate": "causal_gen.evaluate.base:EvaluateConfig",
}
NAMED = {"data": DATA, "model": MODELS}  # sections whose class is chosen by their `name`
