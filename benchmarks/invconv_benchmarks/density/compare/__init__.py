"""Every model trained on equal terms: workers, the result file, its tables and its picture.

May import every other room of `density`, and `measure`, `results` and `report`.
"""
