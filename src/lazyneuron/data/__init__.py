"""Text for span corruption and labelled images: embedded data, files, folders and hub data sets."""
