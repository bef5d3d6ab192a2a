"""Measurements that compare libraries, devices and layers."""
