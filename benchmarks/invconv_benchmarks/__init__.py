"""Measurements that compare libraries, devices and layers; `command` is ``invconv benchmark``."""
