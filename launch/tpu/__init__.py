"""Cloud TPUs: queued resources, slices, and what runs on their hosts."""
