"""Documents drawn from known laws, so that what a model or a statistic recovers can be scored: stories, and mixtures of topics."""

from minitx.synthetic.storytelling import LEXICON, STORY_CLASSES, STORY_COMPANIONS, Stories, stories
from minitx.synthetic.topics import Documents, TopicModel, mask_tokens

__all__ = ["LEXICON", "STORY_CLASSES", "STORY_COMPANIONS", "Documents", "Stories", "TopicModel", "mask_tokens", "stories"]
