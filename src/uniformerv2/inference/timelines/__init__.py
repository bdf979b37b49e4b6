"""What happens when in a long video: segments of the windows' scores, as files, a figure and a page."""
