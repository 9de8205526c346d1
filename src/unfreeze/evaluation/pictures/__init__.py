"""Pictures of a run: what a person sees at a glance, told apart with any colour vision."""
