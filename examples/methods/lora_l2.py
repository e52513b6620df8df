"""LoRA held to the stage before by an L2 penalty: copy this file to methods/ of a workspace, then --method lora-l2."""

from pydantic import Field

from moextend.bench.methods import OneAdapter


class LoraL2(OneAdapter):
    """LoRA held to the stage before by L2."""

    class Config(OneAdapter.Config):
        """What can be set."""

        strength: float = Field(1.0, ge=0)

    def extra_loss(self, model, stage):
        """``strength sum_i (theta_i - theta_i of the stage before)^2``; nothing holds the first stage."""
        if not stage.earlier:
            return None
        weights = self.parameters(model)
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        return lambda batch, out: (
            self.config.strength
            * sum((weight - before[name]).square().sum() for name, weight in weights.items())
        )
