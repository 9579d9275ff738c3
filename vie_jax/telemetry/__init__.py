"""What a run tells as it goes: log, curves, speed, traces, damaged frames."""
