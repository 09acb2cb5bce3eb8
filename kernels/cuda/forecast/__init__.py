"""The forecast of a call's time on a GPU model, told in full and counted by the emulator."""
