//! Importing a tar as an image.
