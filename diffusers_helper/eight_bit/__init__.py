"""8-bit weights: conversion, storage and products. Knows no request and no model class."""
