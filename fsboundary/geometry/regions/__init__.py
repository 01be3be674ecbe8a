"""Decision regions: balls, boxes, facets, boundedness and their certificates."""
