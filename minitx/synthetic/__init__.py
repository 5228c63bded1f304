"""Documents drawn from known laws, so that what a model or a statistic recovers can be scored: stories, topics, priorities."""

from minitx.synthetic.priority import LabelledSequences, PriorityLaw, random_samples, unseen_contexts
from minitx.synthetic.storytelling import LEXICON, STORY_CLASSES, STORY_COMPANIONS, Stories, stories
from minitx.synthetic.topics import Documents, TopicModel, mask_tokens

__all__ = ["LEXICON", "STORY_CLASSES", "STORY_COMPANIONS", "Documents", "LabelledSequences", "PriorityLaw", "Stories", "TopicModel",
           "mask_tokens", "random_samples", "stories", "unseen_contexts"]
