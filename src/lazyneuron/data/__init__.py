"""Real data without a hub: text for span corruption and labelled images, each batch a function of (seed, step)."""
