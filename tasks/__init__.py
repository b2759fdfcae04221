"""The stages that make a machine what machine.yaml says, one module per stage."""
