"""Generated science at five levels: conversion, stoichiometry, mechanics, circuits; answers carry units."""
