"""The stages that make a machine what machine.yaml says: a module or a room for each."""
