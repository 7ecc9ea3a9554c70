//! ImageDataGenerator's random transforms.
