"""Extensions and exported folders on the Hugging Face Hub: what is pushed, with which model card, and back."""
