"""The actor of Ray that plays a share of the environments."""


def worker_class():
    """The class of the actors of ``ray_environments``.

    Defined in a function, it travels to the workers by value, so that they do not
    import this package, and with it Keras. Hence the imports inside.

    Returns:
        A class with ``build(make, count)``, which makes the environments and returns
        their spaces; ``play(name, rows, options)``, which calls ``reset`` or ``step``
        and returns the outcome, the infos, and a digest of all outcomes since the last
        seeded reset; and ``replay``, which repeats calls in place of an actor that
        died, and refuses if the digest differs.

    Example:
        >>> worker_class()().play.__name__
        'play'
    """

    class Worker:
        """Plays a share of the environments."""

        def build(self, make, count):
            import sys

            import gymnasium
            import ray

            packed, path = make  # what is found there is found here
            sys.path += [folder for folder in path if folder not in sys.path]
            make = ray.cloudpickle.loads(packed)

            def checked():
                environment = make()
                if not isinstance(environment, gymnasium.Env):
                    raise ValueError(
                        "The function must make an environment of gymnasium. "
                        f"Received: {environment!r}"
                    )
                return environment

            infos = self.infos = []

            class Share(gymnasium.vector.SyncVectorEnv):
                """Keeps the infos apart: their numbers are those of a share."""

                def _add_info(self, vector_infos, env_info, env_num):
                    if env_info:
                        infos.append((env_num, env_info))
                    return vector_infos

            self.vector = Share([checked] * count)
            first = self.vector.envs[0]
            return {
                "observation_space": first.observation_space,
                "action_space": first.action_space,
                "metadata": first.metadata,
                "spec": first.spec,
            }

        def play(self, name, rows, options):
            import hashlib

            import numpy as np

            self.infos.clear()
            if name == "reset":
                if None not in rows:
                    self.hash = hashlib.blake2b(digest_size=16)
                outcome = self.vector.reset(seed=rows, options=options)[:1]
            else:  # what Ray hands over may not be written to, actions may
                outcome = self.vector.step(np.array(rows))[:4]
            for values in outcome:
                self.hash.update(np.ascontiguousarray(values))
            return outcome, list(self.infos), self.hash.digest()

        def replay(self, make, count, calls, digest):
            self.build(make, count)
            for call in calls[:-1]:
                self.play(*call)
            if digest is not None and self.hash.digest() != digest:
                raise ValueError(
                    "A worker died and cannot be replaced: the environment must do the "
                    "same again for the same seed and actions. Received: other "
                    f"observations, rewards or ends when {len(calls) - 1} calls of "
                    f"{self.vector.envs[0]} were repeated"
                )
            return self.play(*calls[-1])

    return Worker
