//! Puts the agent's control process together and runs it until it is told to stop.
