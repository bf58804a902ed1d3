"""What models around a random model share."""

import keras


class ModelWrapper(keras.Model):
    """A Keras model that calls another one, and shares its weights.

    In training it does what the model does. A subclass says in ``call`` what it does
    in inference, and what it demands of the model in ``check_model``.

    Args:
        model: A :class:`keras.Model`.
        **kwargs: Passed on to :class:`keras.Model`.

    Raises:
        ValueError: If ``model`` is no Keras model.

    Example:
        >>> from dlcompanion.uncertainty import PredictiveMean
        >>> issubclass(PredictiveMean, ModelWrapper)
        True
    """

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(model, keras.Model):
            raise ValueError(f"model must be a Keras model. Received: model={model!r}")
        self.model = model

    def build_if_known(self):
        """Build, if the model is built for a known shape; last line of ``__init__``."""
        shape = getattr(self.model, "input_shape", None) if self.model.built else None
        if shape is not None:
            self.build(shape)

    def check_model(self):
        """Refuse a model that does not fit by a ValueError; it is built by then."""

    def build(self, input_shape=None):
        if not self.model.built:
            self.model.build(input_shape)
        self.check_model()
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def compute_output_shape(self, input_shape):
        return self.model.compute_output_shape(input_shape)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(**{**config, "model": model})
