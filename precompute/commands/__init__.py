"""The verbs of the command line: one function per command, called alike from Python and from `precompute.cli`."""

VERBS = {
    "run": "precompute.commands.basic:run",
    "demo": "precompute.commands.basic:demo",
    "config": "precompute.commands.basic:config",
    "validate": "lfp.bundle.validation:validate",
    "report": "precompute.commands.basic:report",
    "explore": "precompute.commands.basic:explore",
    "mcp": "precompute.commands.basic:mcp",
    "label": "precompute.commands.label:label",
    "ablate": "precompute.commands.ablate:ablate",
    "sweep": "precompute.commands.sweep:sweep",
    "plant": "precompute.commands.plant.plant:plant",
    "write": "precompute.commands.write:write",
    "screen": "precompute.commands.screen:screen",
    "export": "precompute.commands.export:export",
    "import_labels": "precompute.commands.import_labels:import_labels",
    "bench_sae": "precompute.commands.bench:bench_sae",
    "bench_features": "precompute.commands.bench:bench_features",
    "fake_openai": "precompute.commands.basic:fake_openai",
}
"""Where each verb is defined, as module:function, so that nothing is imported before it is called."""
